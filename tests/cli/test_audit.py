"""`instahide audit` in processes of its own: what it says, writes, refuses, and survives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from instahide.audit.session import NAME, PICTURES, RESULTS
from tests.attacks import third_party
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
QUICK = ("--only", "labels", "--only", "averaging-absolute")
#: A class that is named to do harm.
HOSTILE = "<img src=x onerror=alert(1)>&amp;"


def pictures(folder: Path, count: int = 24) -> Path:
    """Digits in class folders, one class with a hostile name."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for number in range(count):
        name = HOSTILE if labels[number] == 3 else f"digit {labels[number]}"
        (folder / name).mkdir(parents=True, exist_ok=True)
        shown = np.rint(pixels[number] * 255 / 16).astype(np.uint8).reshape(8, 8)
        Image.fromarray(shown).save(folder / name / f"{number}.png")
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "instahide", *map(str, arguments)]


def environment(*places: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, [*places, *sys.path]))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "400"}


def run(*arguments: object, places: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(*places), capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and encodings of them: two of each mixed, eight of each image."""
    root = tmp_path_factory.mktemp("audited")
    pictures(root / "images")
    made = run(
        "encrypt", root / "images", "--out", root / "encoded", "--scheme", "inside", "--k", 2,
        "--copies", 8,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return root


def audit(given: Path, out: Path, *more: object, **options: Any) -> Any:
    return run(
        "audit", given / "encoded", "--images", given / "images", "--out", out, *more, **options
    )


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    Draft202012Validator(SCHEMA).validate(found)
    return found


@pytest.mark.slow
def test_the_ceiling_stands_beside_the_attack_everywhere(given: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    done = audit(given, out, "--only", "reconstruction", "--budget", "10m", "--json")
    assert done.returncode == 0, done.stderr
    found = report(out)
    results = {(result["on"], result["encodings_per_image"]): result for result in found["results"]}
    ceiling = results["rehearsal", 8]["ceiling"]
    recognizable = results["rehearsal", 8]["figures"]["images_recognizable"]
    assert ceiling["images_recognizable"] == recognizable + ceiling["not_found"]
    assert ceiling["images_sought"] == 24
    assert results["published", 8]["ceiling"] is None
    assert f"ceiling {ceiling['images_recognizable']} of 24" in " ".join(done.stderr.split())
    printed = json.loads(done.stdout)
    assert printed["summary"]["ceiling"] == ceiling["images_recognizable"] / 24
    missed = ceiling["not_found"] + ceiling["not_enough_information"]
    said = [text for text in printed["verdict"] if text.startswith("The attack “reconstruction”")]
    assert bool(said) == bool(missed)
    assert all(f"missed {missed} of 24 images" in text for text in said)


def test_an_audit_says_what_came_back_and_stands_in_ci(given: Path, tmp_path: Path) -> None:
    places = (third_party.install(tmp_path / "site", "Raises", "Looks", "Babbles"),)
    theirs = ("foreign-raises", "foreign-looks", "foreign-babbles")
    more = [*(word for name in theirs for word in ("--only", name)), *QUICK]
    bounds = ["--fail-if", "recovered>0.5", "--fail-if", "ssim<0.01"]
    result = audit(given, tmp_path / "out", *more, *bounds, places=places)
    assert result.returncode == 3, result.stderr
    found = report(tmp_path / "out")
    # Two images in a mix and eight encodings of each: this is not hidden from anybody.
    assert found["summary"]["recovered"] > 0.5
    assert "recovered recognizably" in found["verdict"][0]
    failed = "This audit is incomplete: 2 attacks failed with an error"
    assert found["verdict"][0].startswith(failed)
    assert result.stdout.startswith(failed)
    assert [bound["violated"] for bound in found["thresholds"]] == [True, False]
    assert "recovered>0.5: violated (" in result.stdout
    assert "ssim<0.01: not violated (" in result.stdout
    states = {r["attack"]: r["state"] for r in found["results"] if not r["point"]}
    assert states == {
        "labels": "done", "averaging-absolute": "done", "foreign-raises": "failed",
        "foreign-looks": "done", "foreign-babbles": "failed",
    }  # fmt: skip
    looks = next(r for r in found["results"] if r["attack"] == "foreign-looks")
    assert looks["figures"]["reached"] == 0
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for text in (third_party.HOSTILE, HOSTILE):
        assert text not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;" in page
    assert f'<p class="lead">{failed}' in page
    assert "secure" not in page.lower()
    holds_no_key_and_no_pairing(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("only", "code"), [((), 3), (("--only", "averaging-absolute"), 0)])
def test_an_attack_that_cannot_be_loaded_is_missing_unless_others_were_named(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: tuple[str, ...], code: int
) -> None:
    from typer.testing import CliRunner

    from instahide.attacks import registry
    from instahide.cli.main import app

    name = "averaging-absolute"
    found = registry.Registered(
        {name: registry.registered().attacks[name]},
        {"strong (no_such_package:Attack)": "ModuleNotFoundError"},
    )
    monkeypatch.setattr(registry, "registered", lambda: found)
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app,
        ["audit", str(given / "encoded"), "--images", str(given / "images"), "--out", str(out),
         "--fail-if", "ssim>=1", *only],
    )  # fmt: skip
    assert result.exit_code == code, result.output
    said = " ".join(result.output.split())
    assert ("attack could be loaded (strong (no_such_package:Attack))" in said) == (code == 3)
    assert report(out)["complete"] == (code == 0)
    assert report(out)["thresholds"][0]["value"] <= 1


@pytest.mark.slow
def test_a_killed_audit_goes_on_with_what_is_missing(given: Path, tmp_path: Path) -> None:
    site, out = third_party.install(tmp_path / "site", "Hangs"), tmp_path / "out"
    arguments = [
        "audit", given / "encoded", "--images", given / "images", "--out", out,
        "--only", "labels", "--only", "foreign-hangs",
    ]  # fmt: skip
    with subprocess.Popen(command(*arguments), env=environment(site)) as process:
        wait_until(lambda: list((out / RESULTS).glob("labels-*.json")), unless=process.poll)
        process.kill()
    (kept,) = (out / RESULTS).iterdir()
    before = kept.stat().st_mtime_ns
    # Without the attack that hangs, as the user would now have it.
    assert audit(given, out, *QUICK).returncode == 0
    assert kept.stat().st_mtime_ns == before
    assert {r["attack"] for r in report(out)["results"]} == {"labels", "averaging-absolute"}


def holds_no_key_and_no_pairing(out: Path) -> None:
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {NAME, "report.html", "report.json"} < names
    assert all(path.stat().st_mode & 0o077 == 0 for path in out.rglob("*"))
    words = (out / "report.json").read_text().lower()
    assert [secret for secret in ("partners", "turned", '"coefficients"') if secret in words] == []
    assert {path.suffix for path in (out / PICTURES).iterdir()} == {".png"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budget", "soon"], "not a time"),
        (["--budget", "0m"], "not a time"),
        (["--budget", "-5"], "not a time"),
        (["--fail-if", "ssim=0.4"], "not a bound"),
        (["--fail-if", "ssim>much"], "not a bound"),
        (["--fail-if", "beauty>0.4"], "no figure 'beauty'"),
        (["--only", "magic"], "no attack 'magic'"),
    ],
)
def test_what_is_mistyped_is_refused_before_anything_is_written(
    given: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    from typer.testing import CliRunner

    from instahide.cli.main import app

    result = CliRunner().invoke(
        app,
        ["audit", str(given / "encoded"), "--images", str(given / "images"),
         "--out", str(tmp_path / "out"), *more],
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def refused(*arguments: object) -> str:
    from typer.testing import CliRunner

    from instahide.cli.main import app

    result = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_what_does_not_fit_is_refused_and_nothing_is_written(given: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out", "--budget", "5s")
    encoded, images = given / "encoded", given / "images"
    assert "neither a training run nor" in refused(images, "--images", images, *out)
    assert "neither a training run nor" in refused(tmp_path / "no", "--images", images, *out)
    fewer = pictures(tmp_path / "fewer", 20)
    assert "made of 24 images" in refused(encoded, "--images", fewer, *out)
    assert "There is no" in refused(encoded, "--images", tmp_path / "nowhere", *out)
    assert "--size 8" in refused(encoded, "--images", images, "--size", 6, *out)
    assert "classes of the images" in refused(encoded, "--images", "digits", *out)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    said = refused(encoded, "--images", images, "--out", tmp_path / "taken", "--only", "labels")
    assert "--out" in said
    (tmp_path / "file").touch()
    refused(encoded, "--images", images, "--out", tmp_path / "file/below", "--only", "labels")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fewer", "file", "taken"]
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]


def test_an_audit_is_not_resumed_on_other_encodings_of_the_same_images(
    given: Path, tmp_path: Path
) -> None:
    """Results of one publication would be reported of another."""
    from typer.testing import CliRunner

    from instahide.audit.open_target import PrivateImages, open_target
    from instahide.audit.session import Session
    from instahide.cli.main import app
    from instahide.data.read_settings import ReadSettings

    again = ["encrypt", given / "images", "--out", tmp_path / "encoded", "--scheme", "inside",
             "--k", 2, "--copies", 8, "--ledger", tmp_path / "ledger.sqlite"]  # fmt: skip
    made = CliRunner().invoke(app, list(map(str, again)))
    assert made.exit_code == 0, made.output
    private, out = PrivateImages(str(given / "images"), ReadSettings()), tmp_path / "out"
    Session.open(out, open_target(str(given / "encoded"), private))
    said = refused(tmp_path / "encoded", "--images", given / "images", "--out", out)
    assert "(published encodings differ)" in said
    assert "--out" in said
    assert not list((out / RESULTS).iterdir())
    # The same encodings may be elsewhere by now.
    shutil.copytree(given / "encoded", tmp_path / "moved")
    Session.open(out, open_target(str(tmp_path / "moved"), private))


def test_a_run_is_taken_as_its_settings_say(tmp_path: Path) -> None:
    from instahide.audit.open_target import PrivateImages, open_target
    from instahide.data.read_settings import ReadSettings
    from instahide.training.settings import TrainSettings

    given = PrivateImages("digits", ReadSettings())
    (tmp_path / "run").mkdir()
    values = {"data": "digits", "scheme": "inside", "k": 3, "epochs": 7}
    settings = TrainSettings.from_values(values).model_dump()
    (tmp_path / "run/settings.json").write_text(json.dumps(settings))
    # Killed before its end, so that there is no network; every epoch is taken to have been seen.
    subject = open_target(str(tmp_path / "run"), given)
    assert (subject.kind, subject.copies, subject.scheme.k) == ("run", 7, 3)
    assert (subject.network, subject.public, subject.published) == (None, None, None)
    # A fifth was set aside to test on, which is not private; attackers may learn from it.
    assert subject.others is not None
    assert len(subject.images) + len(subject.others) == 1797
    pooled = TrainSettings.from_values({"data": ["a", "b"]}).model_dump()
    (tmp_path / "run/settings.json").write_text(json.dumps(pooled))
    assert "Audit each of those: a, b" in refused(tmp_path / "run", "--images", "digits")


@pytest.mark.slow
def test_encodings_are_attacked_with_the_pixels_and_labels_they_were_made_of(
    tmp_path: Path,
) -> None:
    """16-bit images under a window, with findings in a table."""
    from instahide.audit.open_target import PrivateImages, open_target
    from instahide.data.read_settings import ReadSettings

    (tmp_path / "scans").mkdir()
    rows = ["file,mass,nodule"]
    generator = np.random.default_rng(0)
    for number in range(12):
        pixels = generator.integers(0, 4096, (8, 8), np.uint16)
        Image.fromarray(pixels).save(tmp_path / "scans" / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{number // 2 % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    reading = ["--labels", tmp_path / "labels.csv", "--label-columns", "mass,nodule"]
    made = run("encrypt", tmp_path / "scans", *reading, "--window", "500,3000", "--scheme",
               "inside", "--k", "2", "--copies", "8", "--out", tmp_path / "encoded")  # fmt: skip
    assert made.returncode == 0, made.stderr
    given = ReadSettings(labels=str(tmp_path / "labels.csv"), label_columns="mass,nodule")
    target = open_target(str(tmp_path / "encoded"), PrivateImages(str(tmp_path / "scans"), given))
    assert target.images.value_range == (500, 3000)
    assert (target.images.pixels.min(), target.images.pixels.max()) == (500, 3000)
    # What attackers take for classes reveals at least as much as findings do.
    assert target.images.classes == ("none", "nodule", "mass", "mass, nodule")
    assert target.published is not None
    assert target.published.labels is None
    done = run("audit", tmp_path / "encoded", "--images", tmp_path / "scans", *reading,
               "--only", "averaging-absolute", "--only", "labels",
               "--out", tmp_path / "audit")  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads(p.read_text()) for p in (tmp_path / "audit/results").iterdir()]
    assert {(each["attack"], each["state"]) for each in results} == {
        ("averaging-absolute", "done"), ("labels", "done"),
    }  # fmt: skip
    assert f"--labels {tmp_path / 'labels.csv'}" in (tmp_path / "audit/report.json").read_text()


@pytest.mark.slow
def test_a_finished_run_is_asked_who_was_trained_on(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    trained = run(
        "train", "digits", "--scheme", "inside", "--k", 2, "--epochs", 3, "--queries", 0,
        "--out", run_folder,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    out = tmp_path / "out"
    more = ["--only", "membership-loss", "--only", "averaging-absolute", "--budget", "2h"]
    result = run("audit", run_folder, "--images", "digits", "--out", out, *more)
    assert result.returncode == 0, result.stderr
    found = report(out)
    assert found["subject"]["copies"] == 3
    assert 0.3 < found["summary"]["membership_auc"] < 0.9
    assert any("training image" in sentence for sentence in found["verdict"])

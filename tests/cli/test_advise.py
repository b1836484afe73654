"""`instahide advise` in processes of its own, and what `encrypt` and `train` do with its file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instahide.audit.advice.encoder_candidate import AnyCandidate, EncoderCandidate
from instahide.audit.advice.journal import MEASUREMENTS
from instahide.audit.advice.open_search import Request, open_search
from instahide.audit.advice.page import HTML, JSON, SETTINGS
from instahide.audit.advice.schema import Measurement, Targets
from instahide.cli.advise import NOT_MET
from instahide.cli.main import app
from instahide.data.read_settings import ReadSettings
from instahide.encodings.folder import EncodedFolder
from instahide.training.settings import TrainSettings
from tests.audit.advice.examples import candidate, measurement, other
from tests.waiting import wait_until

#: A search that any machine does in a minute or two.
TINY = ("--scheme", "inside", "--steps", "24")
EASY = ("--max-recovered", "1", "--max-drop", "100")
DP = ("--encoder", "dp-instahide", "--encoder-settings", "k=3", "--encoder-settings", "noise=0.5")
FILE = "scheme: inside\nk: 3\nnoise: 0.25\ncopies: 2\n"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "instahide", *map(str, arguments)]


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join(sys.path)
    ledger = str(folder / "ledger.sqlite")
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "400", "INSTAHIDE_LEDGER": ledger}


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(folder), capture_output=True, text=True, check=False
    )


def measured(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (out / MEASUREMENTS).glob("[0-9]*.json")}


def jobs(out: Path) -> list[tuple[str, int]]:
    found = [json.loads(content) for content in measured(out).values()]
    return [(json.dumps(one["candidate"]), one["seed"]) for one in found]


@pytest.mark.slow
def test_a_search_on_digits_survives_a_kill_and_its_file_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "advice"
    words = ("advise", "digits", *TINY, *EASY, "--out", out)
    process = subprocess.Popen(
        command(*words, "--budget", "10h"), env=environment(tmp_path), stderr=subprocess.DEVNULL
    )
    wait_until(lambda: (out / MEASUREMENTS).is_dir() and len(measured(out)) >= 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = measured(out)
    assert (out / HTML).is_file()

    # With more time after each try, the targets, which all settings meet, are met.
    for minutes in (1, 4, 16, 64):
        done = run(tmp_path, *words, "--budget", f"{minutes}m", "--json")
        if done.returncode == 0:
            break
        assert done.returncode == NOT_MET, done.stderr
    assert done.returncode == 0, done.stderr
    assert measured(out).items() >= kept.items()
    assert len(set(jobs(out))) == len(jobs(out))
    assert json.loads(done.stdout)["verdict"] == "recommended"
    advice = json.loads((out / JSON).read_text(encoding="utf-8"))
    assert advice["recommended"]["seeds"] >= 2
    assert advice["recommended"]["attacks"]["demixing"] is not None
    assert not list(out.rglob("*.png"))

    taken(tmp_path, out / SETTINGS)
    # Targets that nothing meets are answered from the same measurements.
    strict = ("advise", "digits", *TINY, "--max-recovered", 0, "--max-drop", 0, "--out", out)
    refused = run(tmp_path, *strict, "--budget", "1s")
    assert refused.returncode == NOT_MET, refused.stderr
    assert "No setting that was tried meets both targets" in refused.stdout
    assert not (out / SETTINGS).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "found", "described"),
    [
        ((), candidate(scheme="inside", noise=0.5), "scheme inside, k = 4, noise 0.5, 2 encodings"),
        (DP, other("dp-instahide", "k=3", "noise=0.5"), "encoder dp-instahide, k=3, noise=0.5, 1"),
        (("--encoder", "noisy-mixup"), other("noisy-mixup"), "encoder noisy-mixup, 1 encoding"),
    ],
)
def test_an_answer_from_what_was_measured_is_a_file_that_is_taken(
    words: tuple[str, ...], found: AnyCandidate, described: str, tmp_path: Path
) -> None:
    out = tmp_path / "advice"
    targets = Targets(max_recovered=0.25, max_drop=3)
    encoders = [found] if isinstance(found, EncoderCandidate) else []
    request = Request(
        "digits", ReadSettings(), targets, 1.0, schemes=("inside",), encoders=encoders, steps=24
    )
    journal = open_search(request, out).journal
    journal.add(Measurement(candidate=None, seed=0, accuracy=0.95))
    journal.add(measurement(found))
    journal.add(measurement(found, seed=1, thorough=True))
    options = ("--max-recovered", 0.25, "--max-drop", 3, "--out", out, "--budget", "1s")
    done = run(tmp_path, "advise", "digits", *TINY, *words, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Recommended: {described}")
    assert str(out / SETTINGS) in done.stdout
    assert len(measured(out)) == 3
    taken(tmp_path, out / SETTINGS)


def taken(folder: Path, file: Path) -> None:
    """Encrypt and train with the file as it is, each way."""
    settings = TrainSettings.load(file)
    made = run(folder, "encrypt", "digits", "--config", file, "--out", folder / "encoded")
    assert made.returncode == 0, made.stderr
    manifest = EncodedFolder.open(str(folder / "encoded")).manifest
    assert manifest.instance_encoder() == settings.instance_encoder()
    assert manifest.copies == settings.copies
    for data in ([], [folder / "encoded", "--test", "digits"]):
        trained = folder / f"run-{len(data)}"
        done = run(folder, "train", *data, "--config", file, "--epochs", 2, "--out", trained)
        assert done.returncode == 0, done.stderr
        assert json.loads((trained / "results.json").read_text())["metrics"]["accuracy"] > 0


def refused(*arguments: object) -> str:
    """The message of a command that ends with exit code 2."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "problem", "remedy"),
    [
        (("--budget", "soon"), "'soon' is not a time", "`--budget 10m`"),
        (("--budget", "0m"), "'0m' is not a time", "`--budget 10m`"),
        (("--max-recovered", "1.5"), "'--max-recovered'", "in the range 0<=x<=1"),
        (("--max-recovered", "-0.1"), "'--max-recovered'", "in the range 0<=x<=1"),
        (("--max-recovered", "nan"), "max_recovered", "--help"),
        (("--max-drop", "-1"), "'--max-drop'", "in the range 0<=x<=100"),
        (("--max-drop", "inf"), "'--max-drop'", "in the range 0<=x<=100"),
        (("--scheme", "mixup"), "'mixup' are not searched", "inside or cross"),
        (("--public", "nowhere"), "no public images", "`--scheme inside`"),
        (("--encoder", "nothing"), "no encoder 'nothing'", "Choose from"),
        (("--encoder", "plain"), "hides nothing", "always measured"),
        (("--encoder-settings", "k=4"), "0 encoders", "Name one encoder"),
        (("--encoder", "neuracrypt", "--encoder-settings", "patch=5"), "not divided", "patch"),
        (("--steps", "0"), "'--steps'", "in the range 1<=x<=1000000"),
        (("--model", "huge"), "no network `huge`", "Choose one of"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    options: tuple[str, ...], problem: str, remedy: str, tmp_path: Path
) -> None:
    out = tmp_path / "advice"
    said = refused("advise", "digits", *options, "--out", out)
    assert problem in said
    assert remedy in said
    assert not out.exists()


def test_the_code_of_an_encoder_that_only_the_folder_names_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_encoder.py").write_text("raise SystemExit('run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "advice"
    targets = Targets(max_recovered=0.01, max_drop=3)
    request = Request("digits", ReadSettings(), targets, 1.0, schemes=("inside",), steps=24)
    open_search(request, out).journal.add(measurement(other("evil_encoder:Evil")))
    words = ("advise", "digits", *TINY, "--out", out, "--budget", "1s")
    assert "which was not named" in refused(*words)
    assert "evil_encoder" not in sys.modules


@pytest.mark.slow
def test_a_search_measures_another_encoder_beside_the_schemes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (80, 8, 8), np.uint8)
    np.savez(tmp_path / "images.npz", x=pixels, y=pixels[:, 0, 0] // 128)
    out = tmp_path / "advice"
    words = ("advise", tmp_path / "images.npz", *TINY, *EASY, *DP, "--out", out)
    process = subprocess.Popen(
        command(*words, "--budget", "10h"), env=environment(tmp_path), stderr=subprocess.DEVNULL
    )
    wait_until(lambda: any("dp-instahide" in name for name in measured(out)), unless=process.poll)
    process.kill()
    process.wait()
    done = run(tmp_path, *words, "--budget", "1s")
    assert done.returncode in (0, NOT_MET), done.stderr
    advice = json.loads((out / JSON).read_text(encoding="utf-8"))
    (found,) = [s for s in advice["settings"] if "encoder" in s["candidate"]]
    assert found["attacks"].keys() == {"inversion"}
    assert (found["ceiling"], found["state"]) == (None, "done")
    assert found["epsilon"] > 0
    assert any("scheme" in s["candidate"] for s in advice["settings"])
    assert "dp-instahide-k=3-noise=0.5-T1" in (out / HTML).read_text(encoding="utf-8")


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "few" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    said = refused("advise", tmp_path / "few", "--out", tmp_path / "advice")
    assert "holds 32 training images" in said
    assert "at least 50" in said


def config(folder: Path, text: str = FILE) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def encrypted(folder: Path, *more: object) -> Any:
    out = folder / "encoded"
    arguments = ["encrypt", "digits", "--config", config(folder), "--out", out, *more]
    arguments += ["--ledger", folder / "ledger.sqlite"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return EncodedFolder.open(str(out)).manifest


def test_encrypt_takes_a_file_and_options_override_it(tmp_path: Path) -> None:
    manifest = encrypted(tmp_path, "--copies", 1, "--k", 4)
    scheme = manifest.encryption()
    assert (scheme.k, scheme.public_k, scheme.noise, manifest.copies) == (4, 0, 0.25, 1)


def test_train_refuses_a_file_that_the_folder_was_not_made_with(tmp_path: Path) -> None:
    encrypted(tmp_path)
    words = ("train", tmp_path / "encoded", "--epochs", 1, "--out", tmp_path / "run", "--config")
    fewer = config(tmp_path, FILE.replace("copies: 2", "copies: 1"))
    assert "ask for 1 encodings" in refused(*words, fewer)
    assert "ask for the encryption" in refused(
        *words, config(tmp_path, FILE.replace("k: 3", "k: 4"))
    )
    result = CliRunner().invoke(app, [*map(str, words), str(config(tmp_path))])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("setting", ["flip: true", "crop_padding: 2", "fresh_crops: true"])
def test_encrypt_refuses_what_only_training_does(setting: str, tmp_path: Path) -> None:
    file = config(tmp_path, FILE + setting)
    said = refused("encrypt", "digits", "--config", file, "--out", tmp_path / "encoded")
    assert f"`{setting.partition(':')[0]}`" in said
    assert not (tmp_path / "encoded").exists()

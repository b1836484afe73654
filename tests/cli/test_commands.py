"""The command line as people use it: every command, and every way it can be misused."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from instahide.cli.main import app
from instahide.training.settings import TrainSettings
from tests.waiting import LIMIT, wait_until

SMALL = ["digits", "--epochs", "2", "--batch-size", "128", "--precision", "float32"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def ok(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """A process of its own, that a test may kill."""
    return subprocess.Popen(
        [sys.executable, "-m", "instahide", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    wait_until(path.exists, unless=lambda: process.poll() and process.communicate())


def photographs(folder: Path, classes: tuple[str, ...], side: int = 16) -> None:
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_train_has_an_option_for_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = ok("train", "--help")
    for name in set(TrainSettings.model_fields) - {"data"}:
        assert re.search(rf"--(no-)?{name.replace('_', '-')}\b", text), name
    assert {"--out", "--config", "--resume", "DATA"} <= set(re.findall(r"--[\w-]+|[A-Z]+", text))


@pytest.mark.slow
def test_train_predict_and_what_they_write(tmp_path: Path) -> None:
    weights = [word for weight in (1, 2) * 5 for word in ("--class-weights", str(weight))]
    text = ok("train", *SMALL, "--k", "4", "--out", "run", *weights)
    assert "encrypted accuracy" in text
    assert "no guarantee" in text
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert [record["epoch"] for record in results["epochs"]] == [1, 2]
    assert set(results["metrics"]) == {
        "accuracy", "encrypted_accuracy", "macro_auroc", "macro_f1",
    }  # fmt: skip
    assert len(results["evaluation"]["confusion_matrix"]) == 10
    assert results["settings"]["class_weights"] == [1.0, 2.0] * 5
    assert results["settings"]["data"] == "digits"
    assert {"torch", "numpy", "python", "instahide"} <= set(results["surroundings"]["versions"])
    for options in (["--queries", "2"], ["--queries", "0"]):
        assert "Accuracy on" in ok("predict", "run", "digits", *options, "--out", "p.csv")
        rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
        assert {row["class"] for row in rows} <= set("0123456789")
        assert all(0 <= float(row["probability"]) <= 1 for row in rows)
        for row in rows:
            shares = [float(row[f"probability:{name}"]) for name in range(10)]
            assert sum(shares) == pytest.approx(1, abs=1e-3)
            assert max(shares) == float(row["probability"])
            assert shares[int(row["class"])] == max(shares)


def test_settings_come_from_a_file_and_options_on_top(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('data = "digits"\nscheme = "plain"\nepochs = 7\n')
    ok("train", "--config", "run.toml", "--epochs", "1", "--no-flip", "--out", "run")
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    assert (settings["scheme"], settings["epochs"], settings["flip"]) == ("plain", 1, False)


@pytest.mark.slow
def test_fresh_crops_come_from_photographs(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)).save(
        (tmp_path / "photos-of-mine").with_suffix(".png")
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "photos-of-mine.png").rename(tmp_path / "mine/a.png")
    ok("train", *SMALL, "--fresh-crops", "--public", "mine", "--out", "run")


@pytest.mark.slow
def test_show_draws_every_scheme(tmp_path: Path) -> None:
    for scheme in ("cross", "inside", "mixup", "plain"):
        ok("show", "digits", "--scheme", scheme, "--images", "2", "--out", "s.png")
        with Image.open(tmp_path / "s.png") as picture:
            assert picture.format == "PNG"
            assert picture.width > picture.height


def test_public_then_train_on_a_folder_of_images(tmp_path: Path) -> None:
    photographs(tmp_path / "mine", ("cat", "dog"))
    text = ok("public", "photos", "--out", "pool", "--patch", "16", "--per-image", "5")
    assert "patches of 16 x 16" in text
    ok("train", "mine", "--public", "pool", "--epochs", "1", "--out", "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["settings"]["public"] == "pool"


def test_bench_prints_a_ratio() -> None:
    assert "times the conversion" in ok("bench", "--images", "2000", "--side", "8")


def test_version() -> None:
    from instahide import __version__

    assert ok("--version").strip() == __version__


def truncated(folder: Path) -> None:
    photographs(folder / "mine", ("cat", "dog"))
    file = folder / "mine/cat/3.png"
    file.write_bytes(file.read_bytes()[:100])


def mixed_sizes(folder: Path) -> None:
    photographs(folder / "mine", ("cat", "dog"))
    Image.new("RGB", (20, 20)).save(folder / "mine/cat/3.png")


def one_class(folder: Path) -> None:
    photographs(folder / "mine", ("cat",))


def empty(folder: Path) -> None:
    (folder / "mine").mkdir()


def not_an_image(folder: Path) -> None:
    photographs(folder / "mine", ("cat", "dog"))
    (folder / "mine/cat/notes.png").write_text("this is text")


def wrong_labels(folder: Path) -> None:
    images = np.zeros((20, 8, 8), np.uint8)
    np.savez(folder / "mine.npz", images=images, labels=np.full(20, -1))


def not_finite(folder: Path) -> None:
    images = np.full((20, 8, 8), np.nan, np.float32)
    np.savez(folder / "mine.npz", images=images, labels=np.arange(20) % 2)


def other_pool(folder: Path) -> None:
    ok("public", "photos", "--out", "pool", "--patch", "16", "--per-image", "2")


def taken(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run/precious.txt").write_text("mine")


def blocked(folder: Path) -> None:
    (folder / "file").write_text("")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "arguments", "told"),
    [
        (nothing, ["missing"], "no missing"),
        (empty, ["mine"], "mine"),
        (truncated, ["mine"], "3.png"),
        (not_an_image, ["mine"], "notes.png"),
        (mixed_sizes, ["mine"], "--size"),
        (one_class, ["mine"], "class"),
        (wrong_labels, ["mine.npz"], "abel"),
        (not_finite, ["mine.npz"], "not finite"),
        (other_pool, ["digits", "--public", "pool"], "16"),
        (nothing, ["digits", "--public", "nowhere"], "nowhere"),
        (nothing, ["digits", "--k", "0"], "k = 0"),
        (nothing, ["digits", "--scheme", "inside", "--k", "5000"], "k"),
        (nothing, ["digits", "--private-k", "9"], "private_k"),
        (nothing, ["digits", "--c1", "0.2"], "c1"),
        (nothing, ["digits", "--c2", "1.5"], "c2"),
        (nothing, ["digits", "--scheme", "inside", "--c1", "0.2501"], "Raise c1"),
        (nothing, ["digits", "--query-coefficient", "0.9"], "min_self_coefficient"),
        (nothing, ["digits", "--scheme", "nonsense"], "nonsense"),
        (nothing, ["digits", "--model", "huge"], "huge"),
        (nothing, ["digits", "--epochs", "0"], "epochs"),
        (nothing, ["digits", "--batch-size", "0"], "--batch-size"),
        (nothing, ["digits", "--device", "abacus"], "abacus"),
        (nothing, ["digits", "--config", "none.toml"], "none.toml"),
        (taken, ["digits"], "--resume"),
        (blocked, ["digits", "--out", "file/run"], "file/run"),
    ],
)
def test_bad_input_is_explained_and_leaves_nothing(
    prepare: Callable[[Path], None], arguments: list[str], told: str, tmp_path: Path
) -> None:
    prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run("train", "--epochs", "1", "--out", "run", *arguments)
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert "Traceback" not in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_files_can_be_skipped(tmp_path: Path) -> None:
    truncated(tmp_path)
    options = ["--scheme", "inside", "--queries", "0", "--epochs", "1", "--out", "run"]
    text = ok("train", "mine", "--skip-bad", *options)
    assert "Note: Skipped 1" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["predict", "nowhere", "digits"], "nowhere"),
        (["show", "digits", "--images", "0"], "0 images"),
        (["show", "--scheme", "inside", "--k", "9999", "digits"], "9999"),
        (["public", "nowhere", "--out", "pool"], "nowhere"),
        (["public", "photos", "--out", "pool", "--patch", "0"], "patch"),
        (["bench", "--channels", "2"], "channels"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_other_commands_explain_themselves_too(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert not list(tmp_path.iterdir())


def test_a_plain_network_takes_no_encrypted_queries() -> None:
    ok("train", *SMALL, "--scheme", "plain", "--out", "run")
    result = run("predict", "run", "digits")
    assert result.exit_code == 2
    assert "--queries 0" in result.output


def test_a_killed_run_resumes_to_its_end(tmp_path: Path) -> None:
    arguments = ["train", *SMALL[:1], "--epochs", "12", "--out", "run"]
    process = start(*arguments)
    wait_for(tmp_path / "run/checkpoint.safetensors", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "run/results.json").exists()
    # Nothing but the folder needs to be named again.
    ok("train", "--out", "run", "--resume")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert [record["epoch"] for record in results["epochs"]] == list(range(1, 13))
    refused = run("train", "--out", "run", "--resume", "--epochs", "50")
    assert refused.exit_code == 2
    assert "epochs: 50 here, 12 there" in refused.output


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    process = start("train", *SMALL[:1], "--epochs", "500", "--out", "run")
    wait_for(tmp_path / "run/checkpoint.safetensors", process)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "Stopped after epoch" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_a_full_disk_is_explained_and_leaves_no_torn_file(tmp_path: Path) -> None:
    """A limit on file sizes fails a write in its middle, as a full disk does."""
    limit = 100_000

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start("train", *SMALL, "--scheme", "plain", "--out", "run", preexec_fn=full)
    _, text = process.communicate(timeout=LIMIT)
    assert process.returncode == 2, text
    assert "Remedy:" in text
    assert "Traceback" not in text
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "copies.json", "data.json", "settings.json",
    }  # fmt: skip


@pytest.mark.slow
def test_the_demo_learns_from_encodings(tmp_path: Path) -> None:
    text = ok("demo", "--out", "demo")
    assert "encryption.png" in text
    accuracies = {
        scheme: json.loads((tmp_path / f"demo/{scheme}/results.json").read_text())["metrics"]
        for scheme in ("plain", "cross")
    }
    assert accuracies["plain"]["accuracy"] > 0.95
    assert accuracies["cross"]["accuracy"] > accuracies["plain"]["accuracy"] - 0.015
    assert accuracies["cross"]["encrypted_accuracy"] > accuracies["cross"]["accuracy"] - 0.01

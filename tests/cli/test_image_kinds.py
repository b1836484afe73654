"""Every command on images of 16 bits and five channels, and on volumes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from instahide.cli.main import app
from tests.scans import stains, volumes

#: Attacks of an audit that do not apply to volumes.
PLANAR = ("demixing", "carlini", "fusion-denoising")
#: Attacks of an audit that apply to images of any kind, beside those that need little time.
LONG = ("reconstruction", "dlg", "inverting-gradients", "federated")
TRAIN = ["--scheme", "inside", "--k", "2", "--epochs", "2", "--batch-size", "16", "--queries", "2"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def ok(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(params=["channels", "volumes"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Real images of a kind, in `images.npz`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    images, labels = stains(60) if request.param == "channels" else volumes(60)
    np.savez("images.npz", images=images, labels=labels)
    return str(request.param)


@pytest.fixture
def model(kind: str) -> str:
    return "small-3d" if kind == "volumes" else "small"


def test_show_says_which_part_it_shows(kind: str) -> None:
    ok("show", "images.npz", "--scheme", "inside", "--k", "2", "--images", "2", "--out", "s.png")
    assert min(_size(Path("s.png"))) > 100


def test_encodings_are_made_checked_and_described(kind: str) -> None:
    ok("encrypt", "images.npz", "--scheme", "inside", "--k", "2", "--out", "encoded")
    ok("verify", "encoded")
    shape = "1 x 8 x 8 x 8" if kind == "volumes" else "5 x 8 x 8"
    assert shape in ok("info", "encoded")


@pytest.mark.slow
def test_training_prediction_and_export(kind: str, model: str) -> None:
    ok("train", "images.npz", *TRAIN, "--model", model, "--out", "run")
    ok("predict", "run", "images.npz", "--queries", "2", "--out", "p.csv")
    rows = list(csv.reader(Path("p.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 61
    ok("export-model", "run", "--format", "pt2", "--out", "model.pt2")
    assert Path("model.pt2").is_file()


def test_training_on_encodings(kind: str, model: str) -> None:
    ok("encrypt", "images.npz", "--scheme", "inside", "--k", "2", "--out", "encoded")
    pooled = ["--epochs", "1", "--batch-size", "16", "--test", "images.npz"]
    ok("train", "encoded", *pooled, "--model", model, "--out", "run")


def test_a_network_of_other_dimensions_is_refused_before_a_run_is_made(kind: str) -> None:
    other, right = ("small", "small-3d") if kind == "volumes" else ("small-3d", "small")
    done = run("train", "images.npz", *TRAIN, "--model", other, "--out", "run")
    assert done.exit_code == 2
    assert f"--model {right}" in " ".join(done.output.split())
    assert not Path("run").exists()


def test_predictions_refuse_pixels_of_another_unit(kind: str, model: str) -> None:
    ok("train", "images.npz", *TRAIN, "--model", model, "--out", "run")
    with np.load("images.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    np.savez("other.npz", images=(images.astype(np.uint16) + 1) * 10, labels=labels)
    done = run("predict", "run", "other.npz", "--queries", "0")
    assert done.exit_code == 2
    assert "bit depth" in done.output


def test_predictions_of_pixels_scaled_from_another_window_say_so(kind: str, model: str) -> None:
    scaled = ["--window", "0,255", "--rescale"]
    ok("train", "images.npz", *TRAIN, "--model", model, *scaled, "--out", "run")
    predict = ["predict", "run", "images.npz", "--queries", "0", "--rescale", "--window"]
    assert "window" not in run(*predict, "0.0,255").stderr
    noted = " ".join(run(*predict, "0,200").stderr.split())
    assert "from the window 0,255, these from 0,200." in noted


@pytest.mark.slow
def test_an_audit_attacks_what_it_can_and_says_what_it_cannot(kind: str, model: str) -> None:
    ok("train", "images.npz", *TRAIN, "--epochs", "6", "--model", model, "--out", "run")
    attacks = ["averaging", "averaging-absolute", "labels", "statistics", "membership-loss"]
    only = [part for name in (*attacks, *PLANAR, *LONG) for part in ("--only", name)]
    ok("audit", "run", "--images", "images.npz", "--budget", "60s", *only, "--out", "audit")
    results = [json.loads(path.read_text()) for path in Path("audit/results").iterdir()]
    assert not [result for result in results if result["state"] == "failed"]
    for result in results:
        planar = result["attack"] in PLANAR
        refused = "two dimensions" in (result["reason"] or "")
        assert refused is (planar and kind == "volumes"), result
    done = {result["attack"] for result in results if result["state"] == "done"}
    assert {"averaging-absolute", "membership-loss", *LONG} <= done
    pictures = list(Path("audit/pictures").iterdir())
    assert pictures
    assert all(_size(path) == (8, 8) for path in pictures)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pooled", "local"])
def test_an_audit_of_a_network_of_ones_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent to the process of the attack, if it can be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    images, labels = stains(40)
    np.savez("images.npz", images=images, labels=labels)
    network = ["--model", f"tests.training.models.factories:{name}"]
    ok("train", "images.npz", *TRAIN, *network, "--out", "run")
    only = ["--only", "membership-loss", "--budget", "30s", "--out", "audit"]
    ok("audit", "run", "--images", "images.npz", *only, *network)
    (path,) = Path("audit/results").iterdir()
    result = json.loads(path.read_text())
    assert result["state"] == ("done" if name == "pooled" else "failed")
    assert name == "pooled" or "cannot be sent" in result["reason"]


def test_a_challenge_is_of_images(kind: str) -> None:
    made = run("challenge", "make", "images.npz", "--k", "2", "--private-k", "2", "--copies", "2",
               "--images", "20", "--out", "challenge", "--truth", "truth")  # fmt: skip
    if kind == "channels":
        assert made.exit_code == 0, made.output
        assert "5 x 8 x 8" in ok("challenge", "info", "challenge")
        return
    assert made.exit_code == 2
    assert "slices" in made.output
    assert not Path("truth").exists()


@pytest.mark.slow
def test_a_network_of_monai_from_training_to_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("monai")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    images, labels = volumes(24, 16)
    np.savez("images.npz", images=images, labels=labels)
    network = ["--model", "monai:resnet10"]
    ok("train", "images.npz", *TRAIN[:-4], "--batch-size", "8", "--queries", "0", *network)
    predict = ["predict", "runs/run", "images.npz", "--queries", "0"]
    refused = run(*predict)
    assert refused.exit_code == 2
    assert "--model monai:resnet10" in " ".join(refused.output.split())
    ok(*predict, *network)
    ok("export-model", "runs/run", "--format", "pt2", "--out", "model.pt2", *network)

"""`--encoder`: other encoders in every command that makes encodings or reads them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from instahide.cli.main import app
from instahide.encodings.folder import EncodedFolder
from tests.audit.challenge.examples import submitted
from tests.encryption.encoders.test_registry import MODULE

SCRAMBLED = ("--encoder", "block-scrambling", "--encoder-settings", "block=2")
DP = ("--encoder", "dp-instahide", "--encoder-settings", "k=3", "--encoder-settings", "noise=900")
FOREIGN = ("--encoder", "foreign_encoder:Negative")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez("images.npz", x=pixels, y=np.arange(60) % 3)
    (tmp_path / "foreign_encoder.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "foreign_encoder", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def said(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code != 0, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def facts(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "manifest.json").read_text())
    return found


@pytest.mark.parametrize("command", ["encrypt", "train"])
def test_a_shape_that_fails_is_explained_and_nothing_is_written(command: str) -> None:
    fails = "    def output_shape(self, shape):\n        raise RuntimeError('out of order')\n"
    Path("foreign_encoder.py").write_text(MODULE + "\n" + fails)
    found = refused(command, "images.npz", *FOREIGN, "--out", "out")
    assert "failed in `output_shape` (out of order)" in found
    assert not Path("out").exists()


def test_a_folder_of_another_encoder_is_written_checked_and_described() -> None:
    made = said("encrypt", "images.npz", *DP, "--copies", "2", "--out", "out")
    assert "epsilon" in made
    assert "by this folder" in made
    manifest = facts("out")
    assert (manifest["encoder"], manifest["scheme"]) == ("dp-instahide", {"k": 3, "noise": 900})
    assert manifest["values"] == "float32"
    assert "dp-instahide" in said("info", "out")
    assert "as it was written" in said("verify", "out")
    # Each image is in its own two encodings, and in others as a partner.
    assert "6.0 of them on average" in said("info", "out")
    assert EncodedFolder.open("out").manifest.max_abs == float("inf")


def test_the_ledger_counts_what_other_encoders_publish() -> None:
    said("encrypt", "images.npz", *SCRAMBLED, "--copies", "3", "--out", "out")
    found = json.loads(run("ledger", "--data", "images.npz", "--json").stdout)
    assert "3" in json.dumps(found)
    said("encrypt", "images.npz", *SCRAMBLED, "--max-exposure", "4", "--copies", "3", "--out", "b")
    assert facts("b")["ended"] == "limit"


def test_encodings_under_one_key_are_not_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    said("encrypt", "images.npz", *SCRAMBLED, "--out", "out")
    answer = refused("encrypt", "images.npz", *SCRAMBLED, "--out", "out", "--resume")
    assert "never stored" in answer


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((*SCRAMBLED, "--k", "4"), "--k is an option of schemes"),
        ((*SCRAMBLED, "--values", "float16"), "no known bound"),
        (("--encoder", "nothing"), "There is no encoder"),
        (("--encoder", "block-scrambling", "--encoder-settings", "block=3"), "not divided"),
        (("--encoder", "block-scrambling", "--encoder-settings", "block"), "not a setting"),
        (("--encoder", "no_module:Name"), "cannot be imported"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...], why: str) -> None:
    assert why in refused("encrypt", "images.npz", *options, "--out", "out")
    assert not Path("out").exists()


def test_a_network_of_encodings_under_one_key_is_tested_under_it_and_used_nowhere_else() -> None:
    said("train", "images.npz", *SCRAMBLED, "--epochs", "1", "--out", "run")
    results = json.loads(Path("run/results.json").read_text())
    assert "accuracy" in results["metrics"]
    assert "encoder" in results["settings"]
    assert "k" not in results["settings"]
    assert "share a key" in refused("predict", "run", "images.npz", "--queries", "0")
    assert "share a key" in refused("export-model", "run", "--format", "pt2", "--out", "m.pt2")
    said("encrypt", "images.npz", *SCRAMBLED, "--out", "encoded")
    assert "Leave out" in refused("train", "encoded", "--test", "images.npz", "--out", "pooled")


def test_settings_of_a_scheme_and_of_an_encoder_exclude_each_other() -> None:
    for more in (("--scheme", "inside"), ("--noise", "1"), ("--queries", "3"), ("--flip",)):
        assert "is for schemes" in refused("train", "images.npz", *SCRAMBLED, *more)
    assert "no `encoder`" in refused("train", "images.npz", "--encoder-settings", "k=3")


def test_a_settings_file_imports_no_package_that_was_not_typed() -> None:
    Path("run.yaml").write_text(
        "data: images.npz\nencoder: 'foreign_encoder:Negative'\nepochs: 1\n"
    )
    answer = refused("train", "--config", "run.yaml", "--out", "run")
    assert "would be imported" in answer
    answer = refused("encrypt", "images.npz", "--config", "run.yaml", "--out", "folder")
    assert "would be imported" in answer
    assert "foreign_encoder" not in sys.modules
    said("train", "--config", "run.yaml", *FOREIGN, "--out", "run")
    audit = ("audit", "run", "--images", "images.npz", "--only", "statistics", "--budget", "5s")
    sys.modules.pop("foreign_encoder")
    assert "would be imported" in refused(*audit, "--out", "a")
    assert "foreign_encoder" not in sys.modules


def test_a_folder_imports_no_package_that_was_not_typed() -> None:
    said("encrypt", "images.npz", *FOREIGN, "--out", "out")
    sys.modules.pop("foreign_encoder")
    audit = ("audit", "out", "--images", "images.npz", "--only", "statistics", "--budget", "5s")
    assert "would be imported" in refused(*audit, "--out", "a")
    assert "another package made" in said("info", "out")
    said("verify", "out")
    said("train", "out", "--epochs", "1", "--out", "run")
    assert "foreign_encoder" not in sys.modules
    answer = refused(*audit, "--encoder", "block-scrambling", "--out", "a")
    assert "cannot be made" in answer or "not block-scrambling" in answer


@pytest.mark.slow
def test_an_audit_of_another_encoder_says_what_it_leaves_out() -> None:
    said("train", "images.npz", *SCRAMBLED, "--epochs", "2", "--out", "run")
    answer = said(
        "audit", "run", "--images", "images.npz", "--out", "audit", "--budget", "20s",
        "--only", "linkage", "--only", "labels", "--only", "membership",
    )  # fmt: skip
    report = json.loads(Path("audit/report.json").read_text())
    assert report["subject"]["encoder"] == "block-scrambling"
    states = {result["attack"]: result["state"] for result in report["results"]}
    assert states == {"linkage": "done", "labels": "not tried", "membership": "not tried"}
    reasons = {result["reason"] for result in report["results"] if result["reason"]}
    assert all("structure of InstaHide" in reason for reason in reasons)
    # Two encodings of an image under one key are equal.
    assert report["summary"]["linked"] == pytest.approx(1)
    assert report["hardness"]["figures"] == []
    assert "guessing gives 50%" in answer
    assert "no guarantee of the encoder block-scrambling" in answer


@pytest.mark.slow
def test_an_audit_plays_the_game_of_distinguishing() -> None:
    said("train", "images.npz", "--encoder", "plain", "--epochs", "1", "--out", "run")
    answer = said(
        "audit", "run", "--images", "images.npz", "--out", "audit", "--budget", "10m",
        "--only", "distinguishing", "--fail-if", "distinguished<0.5",
    )  # fmt: skip
    (result,) = json.loads(Path("audit/report.json").read_text())["results"]
    figures = result["figures"]
    assert figures["distinguished_trials"] >= 100
    assert figures["distinguished_low"] > 0.5
    assert "both images of each pair, of which one was encoded" in result["grants"]
    assert "which one was encoded" in answer


def test_a_challenge_of_another_encoder_is_made_read_and_scored() -> None:
    said(
        "challenge", "make", "images.npz", "--encoder", "neuracrypt", "--encoder-settings",
        "width=6", "--images", "10", "--copies", "2", "--out", "given", "--truth", "kept",
    )  # fmt: skip
    assert np.load("given/encryption.npy").shape == (20, 2, 2, 6)
    assert "neuracrypt" in said("challenge", "info", "given").lower()
    submitted(Path("blank"), Path("given"), np.zeros((20, 8, 8, 1), np.float32))
    assert "max_ssim" in said("challenge", "score", "blank", "--truth", "kept")
    assert "--k is an option of schemes" in refused(
        "challenge", "make", "images.npz", "--encoder", "neuracrypt", "--k", "4", "--out", "g",
        "--truth", "t",
    )  # fmt: skip


def test_settings_of_no_encoder_are_refused() -> None:
    settings = ("--encoder-settings", "noise=2.0", "--out", "folder")
    assert "no --encoder" in refused("encrypt", "images.npz", "--scheme", "inside", *settings)
    assert not Path("folder").exists()
    truth = ("--truth", "truth")
    assert "no --encoder" in refused("challenge", "make", "images.npz", *settings, *truth)


def test_a_network_of_encodings_under_a_key_is_not_calibrated_on_images() -> None:
    said("train", "images.npz", *SCRAMBLED, "--epochs", "1", "--out", "run")
    before = Path("run/model.safetensors").read_bytes()
    assert "key" in refused("calibrate", "run", "images.npz")
    assert Path("run/model.safetensors").read_bytes() == before


def test_encodings_under_a_key_are_not_pooled_with_others() -> None:
    said("encrypt", "images.npz", *SCRAMBLED, "--out", "one")
    said("encrypt", "images.npz", *DP, "--out", "two")
    for pair in (("one", "two"), ("two", "one")):
        assert "share a key" in refused("train", *pair, "--epochs", "1", "--out", "run")


def test_one_file_of_settings_serves_for_encryption_and_training() -> None:
    Path("c.yaml").write_text(
        "encoder: dp-instahide\nencoder_settings: [k=3, noise=900]\nepochs: 1\n"
    )
    said("encrypt", "images.npz", "--config", "c.yaml", "--out", "folder")
    said("train", "folder", "--config", "c.yaml", "--out", "run")
    Path("d.yaml").write_text(
        "encoder: dp-instahide\nencoder_settings: [k=4, noise=900]\nepochs: 1\n"
    )
    assert "ask for the encryption" in refused(
        "train", "folder", "--config", "d.yaml", "--out", "r"
    )


def test_a_limit_leaves_a_guarantee_unknown_instead_of_denying_noise() -> None:
    text = said("train", "images.npz", *DP, "--epochs", "1", "--max-exposure", "99", "--out", "run")
    assert "Differential privacy: not known here" in text
    assert "no noise" not in text


def test_several_folders_are_not_called_as_safe_as_one() -> None:
    noisy = ("--scheme", "inside", "--k", "2", "--noise", "40")
    for name in ("one", "two"):
        said("encrypt", "images.npz", *noisy, "--out", name)
    text = said("train", "one", "two", "--epochs", "1", "--out", "run")
    assert "by each of these folders alone (weaker for images that are in several)" in text


def test_a_manifest_whose_encoder_cannot_be_made_is_damaged() -> None:
    said("encrypt", "images.npz", *DP, "--out", "folder")
    manifest = EncodedFolder.open("folder").manifest
    for changes in ({"encoder": "noisy-mixup"}, {"scheme": {"k": 1000, "noise": 1.0}}):
        text = manifest.model_copy(update=changes).to_json()
        Path("folder/manifest.json").write_bytes(text)
        assert "folder" in refused("info", "folder")

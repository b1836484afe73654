"""Encodings that are trained on again: as many as stated, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from instahide import EncodedLoader, Encoder, Scheme, open_split
from instahide.audit.open_target import PrivateImages, open_target
from instahide.data.read_settings import ReadSettings
from instahide.errors import DamagedFileError, InstaHideError
from instahide.training.data.kept_encodings import FOLDER, KeptEncodings
from instahide.training.settings import TrainSettings
from instahide.training.trainer import start
from tests.waiting import wait_until

IMAGES = open_split("digits").train


def kept(copies: int, folder: Path | None = None) -> KeptEncodings:
    encoder = Encoder(Scheme.inside(4), IMAGES)
    return KeptEncodings(EncodedLoader(encoder, batch_size=200), copies, folder)


def rows(loader: KeptEncodings) -> set[bytes]:
    """The encodings of an epoch, as bytes."""
    found = [image.numpy().tobytes() for batch in loader for image in batch.images]
    assert len(found) == len(IMAGES)
    return set(found)


@pytest.mark.parametrize("in_files", [False, True])
def test_later_epochs_train_on_earlier_encodings(in_files: bool, tmp_path: Path) -> None:
    loader = kept(2, tmp_path / "kept" if in_files else None)
    epochs = [rows(loader) for _ in range(5)]
    assert epochs[0] != epochs[1]
    assert epochs[2:] == [epochs[0], epochs[1], epochs[0]]
    assert loader.loader.encoder.exposure.counts.sum() == 2 * 4 * len(IMAGES)


def test_the_order_is_new_in_every_epoch_and_labels_stay_with_their_encodings() -> None:
    loader = kept(1)
    pairs = [
        [(image.numpy().tobytes(), label.tolist()) for batch in loader
         for image, label in zip(batch.images, batch.labels, strict=True)]
        for _ in range(3)
    ]  # fmt: skip
    assert [image for image, _ in pairs[1]] != [image for image, _ in pairs[2]]
    assert dict(pairs[0]) == dict(pairs[1]) == dict(pairs[2])


def test_files_of_an_earlier_process_are_used(tmp_path: Path) -> None:
    first = kept(2, tmp_path)
    epochs = [rows(first), rows(first)]
    second = kept(2, tmp_path)
    assert rows(second) == epochs[0]
    assert second.loader.encoder.exposure.counts.sum() == 0
    (tmp_path / "1.safetensors").write_bytes(b"damaged")
    with pytest.raises(DamagedFileError):
        rows(second)


def test_an_epoch_that_was_not_finished_is_not_kept(tmp_path: Path) -> None:
    loader = kept(1, tmp_path)
    next(iter(loader))
    assert list(tmp_path.iterdir()) == []
    assert len(rows(loader)) == len(IMAGES)


def test_what_cannot_be_kept_is_refused() -> None:
    encoder = Encoder(Scheme.inside(4), IMAGES)
    with pytest.raises(InstaHideError, match="copies = 0"):
        KeptEncodings(EncodedLoader(encoder, 100), 0)
    with pytest.raises(InstaHideError, match="leaves out"):
        KeptEncodings(EncodedLoader(encoder, 100, drop_last=True), 1)


def settings(ledger: Path, **changes: object) -> TrainSettings:
    plain = {
        "data": "digits", "scheme": "inside", "copies": 2, "epochs": 3, "queries": 0,
        "batch_size": 512, "ledger": str(ledger),
    }  # fmt: skip
    return TrainSettings.from_values(plain | changes)


@pytest.mark.slow
def test_a_run_makes_no_more_encodings_and_its_audit_knows(tmp_path: Path) -> None:
    trainer = start(settings(tmp_path / "ledger"), tmp_path / "run")
    exposure = trainer.facts["exposure"]
    # Two of each image itself, and it as a partner in others.
    assert exposure["least"] >= 2
    total = torch.as_tensor(trainer.material.encoder.exposure.counts).sum()  # type: ignore[attr-defined]
    assert total == 2 * 4 * len(IMAGES)
    assert not (tmp_path / "run" / FOLDER).exists()
    subject = open_target(str(tmp_path / "run"), PrivateImages("digits", ReadSettings()))
    assert subject.copies == 2


@pytest.mark.slow
def test_a_killed_run_keeps_its_encodings(tmp_path: Path) -> None:
    run, ledger = tmp_path / "run", tmp_path / "ledger"
    command = [
        sys.executable, "-m", "instahide", "train", "digits", "--scheme", "inside", "--copies", "1",
        "--queries", "0", "--ledger", str(ledger), "--out", str(run),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([*command, "--epochs", "100000"], env=environment)
    wait_until(lambda: (run / "checkpoint.safetensors").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()
    file = run / FOLDER / "0.safetensors"
    before = file.read_bytes()
    process = subprocess.Popen([*command, "--epochs", "100000", "--resume"], env=environment)
    written = (run / "checkpoint.safetensors").stat().st_mtime_ns
    wait_until(lambda: (run / "checkpoint.safetensors").stat().st_mtime_ns != written)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert file.read_bytes() == before


def test_a_copy_whose_file_is_gone_is_made_again_once(tmp_path: Path) -> None:
    first = kept(2, tmp_path)
    rows(first), rows(first)
    (tmp_path / "0.safetensors").unlink()
    loader = kept(2, tmp_path)
    epochs = [rows(loader) for _ in range(4)]
    assert loader.loader.encoder.exposure.counts.sum() == 4 * len(IMAGES)
    assert epochs[1] == epochs[3]


@pytest.mark.parametrize("copies", [None, 1])
def test_a_run_with_a_key_of_the_data_set_is_not_resumed(
    copies: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))
    settings = TrainSettings(
        data="digits", encoder="block-scrambling", encoder_settings=["block=2"], epochs=2,
        copies=copies,
    )  # fmt: skip
    stopped = start(settings, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    assert len(stopped.history) == 2
    with pytest.raises(
        InstaHideError, match="cannot be resumed: all encodings of block-scrambling"
    ):
        start(settings, tmp_path / "run", resume=True)

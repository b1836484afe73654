"""A resumed run goes on with the data and the ledger that it began with, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instahide.cli.main import app
from instahide.errors import DamagedFileError, InstaHideError
from instahide.training.history import EpochRecord
from instahide.training.progress import Progress
from instahide.training.settings import TrainSettings
from instahide.training.trainer import start

IMAGES, SIDE = 120, 8


class StoppedAfterOne(Progress):
    """Interrupts a run after its first epoch."""

    def epoch(self, record: EpochRecord) -> None:
        raise KeyboardInterrupt


def write_images(path: Path, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE), np.uint8)
    arrays = {"x": pixels, "y": np.arange(IMAGES) % 3}
    np.savez(
        path, **{name: changes.get(name, lambda x: x)(value) for name, value in arrays.items()}
    )


def begun(folder: Path, data: str, **changes: object) -> TrainSettings:
    """The settings of a run that was stopped after its first epoch."""
    run = TrainSettings.from_values({"data": data, "epochs": 2, "batch_size": 32} | changes)
    with pytest.raises(KeyboardInterrupt):
        start(run, folder / "run", progress=StoppedAfterOne())
    return run


INSIDE: dict[str, object] = {"scheme": "inside", "k": 2, "queries": 0}


@pytest.mark.parametrize("method", [INSIDE, {"scheme": "plain"}, INSIDE | {"copies": 1}])
@pytest.mark.parametrize(
    "change",
    [
        {"x": lambda x: np.roll(x, 1, axis=0)},
        {"x": lambda x: x ^ (np.arange(x.size).reshape(x.shape) == 0)},
        {"y": lambda y: (y + 1) % 3},
    ],
    ids=["order", "one pixel", "labels"],
)
def test_other_images_or_labels_of_equal_number_are_refused(
    change: dict[str, Callable[[np.ndarray], np.ndarray]],
    method: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger"))
    write_images(tmp_path / "images.npz")
    run = begun(tmp_path, str(tmp_path / "images.npz"), **method)
    write_images(tmp_path / "images.npz", **change)
    with pytest.raises(InstaHideError, match="other images, labels or encodings"):
        start(run, tmp_path / "run", resume=True)
    write_images(tmp_path / "images.npz")
    assert len(start(run, tmp_path / "run", resume=True).history) == 2


def encrypted(data: Path, out: Path) -> Path:
    options = ["--scheme", "inside", "--k", "2", "--out", str(out)]
    done = CliRunner().invoke(app, ["encrypt", str(data), *options])
    assert done.exit_code == 0, done.output
    return out


def test_other_test_encodings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger"))
    write_images(tmp_path / "images.npz")
    data, test, other = (encrypted(tmp_path / "images.npz", tmp_path / name) for name in "abc")
    run = begun(tmp_path, str(data), test=str(test))
    test.rename(tmp_path / "first")
    other.rename(test)
    with pytest.raises(InstaHideError, match="with other test images"):
        start(run, tmp_path / "run", resume=True)


@pytest.mark.parametrize("training", ["images", "encodings"])
def test_other_test_images_are_refused(
    training: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracies of one history would be of different images."""
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger"))
    write_images(tmp_path / "images.npz")
    write_images(tmp_path / "test.npz", x=lambda x: x[::-1])
    data, method = str(tmp_path / "images.npz"), INSIDE
    if training == "encodings":
        data, method = str(encrypted(tmp_path / "images.npz", tmp_path / "encoded")), {}
    run = begun(tmp_path, data, test=str(tmp_path / "test.npz"), **method)
    write_images(tmp_path / "test.npz")
    with pytest.raises(InstaHideError, match="with other test images"):
        start(run, tmp_path / "run", resume=True)
    write_images(tmp_path / "test.npz", x=lambda x: x[::-1])
    assert len(start(run, tmp_path / "run", resume=True).history) == 2


@pytest.mark.slow
def test_another_ledger_is_refused_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger"))
    run = begun(tmp_path, "digits", **INSIDE)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "another"))
    before = (tmp_path / "run/copies.json").read_bytes()
    with pytest.raises(InstaHideError, match="another ledger"):
        start(run, tmp_path / "run", resume=True)
    assert (tmp_path / "run/copies.json").read_bytes() == before


def test_classes_that_were_renamed_are_refused(tmp_path: Path) -> None:
    """Names in another order would swap the network's outputs."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, SIDE, SIDE), np.uint8)
    for number, image in enumerate(pixels):
        place = tmp_path / "images" / ("a_healthy" if number % 2 else "b_sick")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    run = begun(tmp_path, str(tmp_path / "images"), scheme="plain")
    (tmp_path / "images/a_healthy").rename(tmp_path / "images/healthy")
    (tmp_path / "images/b_sick").rename(tmp_path / "images/abnormal")
    with pytest.raises(InstaHideError, match="other images, labels or encodings"):
        start(run, tmp_path / "run", resume=True)


def test_other_encodings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger"))
    write_images(tmp_path / "images.npz")
    for name in ("encoded", "another"):
        encrypted(tmp_path / "images.npz", tmp_path / name)
    run = begun(tmp_path, str(tmp_path / "encoded"))
    (tmp_path / "encoded").rename(tmp_path / "first")
    (tmp_path / "another").rename(tmp_path / "encoded")
    with pytest.raises(InstaHideError, match="other images, labels or encodings"):
        start(run, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "content",
    [
        None, "", "[]", "[" * 999, '{"salt": "", "fingerprints": []}',
        f'{{"salt": "{"0" * 32}", "fingerprints": [[]]}}',
    ],
)  # fmt: skip
def test_lost_or_damaged_fingerprints_are_refused(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger"))
    run = begun(tmp_path, "digits", **INSIDE)
    file = tmp_path / "run/data.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(DamagedFileError, match=r"data\.json cannot be read"):
        start(run, tmp_path / "run", resume=True)

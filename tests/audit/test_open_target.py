"""The target of an audit has at least as many encodings of each image as were made."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instahide import Scheme, open_images, open_split
from instahide.audit.open_target import PrivateImages, open_target
from instahide.audit.target import AuditTarget
from instahide.cli.main import app
from instahide.data.read_settings import ReadSettings
from instahide.encodings.ledger.ledger import Ledger
from instahide.errors import DamagedFileError, DataError
from instahide.training.history import EpochRecord
from instahide.training.progress import Progress
from instahide.training.settings import TrainSettings
from instahide.training.trainer import start

K = 2


class Killed(Progress):
    """Interrupts the first epoch of a process in its middle."""

    def batch(self, number: int, loss: float, speed: float) -> None:
        raise KeyboardInterrupt


class StoppedAfterOne(Progress):
    """Interrupts a run after its first epoch."""

    def epoch(self, record: EpochRecord) -> None:
        raise KeyboardInterrupt


def settings(folder: Path, **changes: object) -> TrainSettings:
    values = {
        "data": "digits", "scheme": "inside", "k": K, "epochs": 3, "queries": 0, "batch_size": 64,
        "ledger": str(folder / "ledger"), "test_share": 0.2,
    }  # fmt: skip
    return TrainSettings.from_values(values | changes)


def audited(folder: Path) -> AuditTarget:
    return open_target(str(folder / "run"), PrivateImages("digits", ReadSettings()))


def made(folder: Path) -> float:
    """The encodings of an image that the ledger counted, in the mean."""
    images = open_split("digits", test_share=0.2).train
    counts = Ledger.open(folder / "ledger").account(images).counts
    return float(np.mean(counts)) / K


@pytest.mark.slow
@pytest.mark.parametrize("copies", [None, 2])
@pytest.mark.parametrize("kills", [0, 3])
def test_epochs_that_a_kill_repeated_count(kills: int, copies: int | None, tmp_path: Path) -> None:
    """However often a run is killed and resumed, its audit knows all that it made."""
    run = settings(tmp_path, copies=copies)
    for _ in range(kills):
        with pytest.raises(KeyboardInterrupt):
            start(run, tmp_path / "run", resume=True, progress=Killed())
        # The run may never be continued; what it made is counted all the same.
        assert audited(tmp_path).copies >= made(tmp_path)
    start(run, tmp_path / "run", resume=True)
    target = audited(tmp_path)
    assert target.copies == (copies or 3) + kills
    assert target.copies >= made(tmp_path) > target.copies - kills - 1
    assert "encodings of each image" not in target.settings


def test_a_finished_run_that_is_resumed_made_nothing_new(tmp_path: Path) -> None:
    run = settings(tmp_path, epochs=1)
    for _ in range(3):
        start(run, tmp_path / "run", resume=True)
    assert audited(tmp_path).copies == 1


def test_the_guarantee_is_that_of_all_encodings(tmp_path: Path) -> None:
    run = settings(tmp_path, scheme="inside", noise=1.0, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        start(run, tmp_path / "run", progress=Killed())
    start(run, tmp_path / "run", resume=True)
    images = audited(tmp_path).images
    scheme = Scheme.inside(K, noise=1.0)
    assert (
        audited(tmp_path).guarantees
        == AuditTarget("run", "run", "digits", images, None, scheme, copies=2).guarantees
    )


@pytest.mark.slow
def test_a_run_without_a_count_says_so_and_a_damaged_count_is_refused(tmp_path: Path) -> None:
    start(settings(tmp_path, epochs=1), tmp_path / "run")
    count = tmp_path / "run/copies.json"
    assert json.loads(count.read_text()) == {"copies": 1}
    wrong = ("null", "-3", "0", "2.7", "1e3", "true", '"1_0"')
    texts = ("", "[]", "{}", '{"copies": 1', "[" * 1000)
    for damaged in (*texts, *(f'{{"copies": {value}}}' for value in wrong)):
        count.write_text(damaged)
        with pytest.raises(DamagedFileError, match=r"copies.json is damaged"):
            audited(tmp_path)
    count.unlink()
    assert "interrupted" in audited(tmp_path).settings["encodings of each image"]


@pytest.mark.slow
def test_a_run_whose_first_epochs_were_not_counted_stays_without_a_count(tmp_path: Path) -> None:
    """Such as one of an earlier version that is resumed."""
    with pytest.raises(KeyboardInterrupt):
        start(settings(tmp_path), tmp_path / "run", progress=StoppedAfterOne())
    (tmp_path / "run/copies.json").unlink()
    start(settings(tmp_path), tmp_path / "run", resume=True)
    assert "interrupted" in audited(tmp_path).settings["encodings of each image"]


def test_other_images_than_those_of_the_run_are_refused(tmp_path: Path) -> None:
    """An audit would take them for training images, and find that nothing was learned of them."""
    with np.load(practice_images(tmp_path / "images.npz")) as arrays:
        pixels, labels = arrays["x"], arrays["y"]
    start(settings(tmp_path, data=str(tmp_path / "images.npz"), epochs=1), tmp_path / "run")
    given = PrivateImages(str(tmp_path / "images.npz"), ReadSettings())
    assert len(open_target(str(tmp_path / "run"), given).images) == 96
    others = {
        "fewer": (pixels[:60], labels[:60]),
        "another pixel": (pixels ^ (np.arange(pixels.size).reshape(pixels.shape) == 0), labels),
        "other labels": (pixels, (labels + 1) % 3),
    }
    for x, y in others.values():
        np.savez(tmp_path / "images.npz", x=x, y=y)
        with pytest.raises(DataError, match="not those that the run"):
            open_target(str(tmp_path / "run"), given)
    # Not the same images if they are read in another way.
    practice_images(tmp_path / "images.npz")
    with pytest.raises(DataError, match="not those that the run"):
        open_target(str(tmp_path / "run"), given._replace(reading=ReadSettings(size=16)))
    # Several processes had shares of the images, or images of their own.
    facts = json.loads((tmp_path / "run/data.json").read_text())
    facts["fingerprints"] *= 2
    (tmp_path / "run/data.json").write_text(json.dumps(facts))
    compared = open_target(str(tmp_path / "run"), given).settings["images of the run"]
    assert "is not known" in compared
    (tmp_path / "run/data.json").unlink()
    with pytest.raises(DamagedFileError, match=r"data\.json cannot be read"):
        open_target(str(tmp_path / "run"), given)


@pytest.mark.parametrize("known", [False, True])
def test_no_bound_is_stated_of_images_that_the_ledger_alone_counts_together(
    known: bool, tmp_path: Path
) -> None:
    """Partners of the 100 images of one patient are the other 20, again and again."""
    data = str(practice_images(tmp_path / "images.npz"))
    if known:
        images = open_images(data)
        patients = images.grouped(["one" if row < 100 else "" for row in range(len(images))])
        Ledger.open(tmp_path / "ledger").account(patients)
    run = settings(tmp_path, data=data, noise=50.0, epochs=2)
    given = PrivateImages(data, ReadSettings())
    with pytest.raises(KeyboardInterrupt):
        start(run, tmp_path / "run", progress=StoppedAfterOne())
    # Only a finished run says whether it is so.
    assert open_target(str(tmp_path / "run"), given).guarantees.epsilon is None
    start(run, tmp_path / "run", resume=True)
    target = open_target(str(tmp_path / "run"), given)
    assert (target.guarantees.epsilon is None) is known
    assert (target.guarantees.floor is None) is known
    assert (target.uneven is not None) is known


def practice_images(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 8, 8), np.uint8)
    np.savez(path, x=pixels, y=np.arange(120) % 3)
    return path


CHANGES: dict[str, Callable[[Path], object]] = {
    "one more": lambda folder: (folder / "a/00.png").write_bytes(
        (folder / "b/01.png").read_bytes()
    ),
    "one less": lambda folder: (folder / "a/02.png").unlink(),
    "one replaced": lambda folder: (folder / "a/02.png").write_bytes(
        (folder / "b/01.png").read_bytes()
    ),
    "another class": lambda folder: (folder / "a/02.png").rename(folder / "b/02.png"),
}


@pytest.mark.slow
@pytest.mark.parametrize("tested", [False, True], ids=["split drawn", "test images apart"])
@pytest.mark.parametrize("scheme", ["inside", "plain"])
def test_images_that_changed_since_the_run_are_refused(
    scheme: str, tested: bool, tmp_path: Path
) -> None:
    """A split drawn anew would take images of the training for ones that it has never seen."""
    for number in range(1, 41):
        place = tmp_path / "images" / "ba"[number % 2 == 0]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    shutil.copytree(tmp_path / "images", tmp_path / "kept")
    test = {"test": str(tmp_path / "kept")} if tested else {}
    data = str(tmp_path / "images")
    start(settings(tmp_path, data=data, scheme=scheme, epochs=1, **test), tmp_path / "run")
    for change in CHANGES.values():
        shutil.rmtree(tmp_path / "images")
        shutil.copytree(tmp_path / "kept", tmp_path / "images")
        change(tmp_path / "images")
        with pytest.raises(DataError, match="not those that the run in"):
            open_target(str(tmp_path / "run"), PrivateImages(data, ReadSettings()))
    # The same images under another name.
    kept = PrivateImages(str(tmp_path / "kept"), ReadSettings())
    assert len(open_target(str(tmp_path / "run"), kept).images) == (40 if tested else 32)


def encrypted(folder: Path, source: str, *options: str) -> str:
    """A folder of encodings of ``source``."""
    place = str(folder / f"encoded-{len(list(folder.iterdir()))}")
    words = ["encrypt", source, "--scheme", "inside", "--k", "2", "--out", place, *options]
    done = CliRunner().invoke(app, [*words, "--ledger", str(folder / "ledger")])
    assert done.exit_code == 0, done.output
    return place


def write_scans(path: Path, seed: int) -> str:
    """Images of 12 of 16 bits, of which all files have the lowest and the highest value."""
    pixels = np.random.default_rng(seed).integers(0, 4096, (24, 8, 8)).astype(np.uint16)
    pixels[0, 0, :2] = 0, 4095
    np.savez(path, images=pixels, labels=np.arange(24) % 2)
    return str(path)


@pytest.mark.parametrize(
    "options",
    [{}, {"window": "1%,99%"}, {"window": "0,4095", "rescale": True}, {"size": 5}],
    ids=["as they are", "percentiles", "rescaled", "resized"],
)
def test_other_images_than_those_of_a_folder_are_told(
    options: dict[str, object], tmp_path: Path
) -> None:
    """Nothing would be recovered of them, although the encodings may show everything."""
    own, other = (write_scans(tmp_path / f"{seed}.npz", seed) for seed in (1, 2))
    words = [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()
    ]
    place, how = encrypted(tmp_path, own, *words), ReadSettings.model_validate(options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "images" not in open_target(place, PrivateImages(own, how)).settings
    with pytest.warns(UserWarning, match="this report says nothing about the folder"):
        found = open_target(place, PrivateImages(other, how)).settings
    assert "other images" in found["images"]


def test_built_in_images_have_the_normalization_of_their_encodings(tmp_path: Path) -> None:
    place = encrypted(tmp_path, "digits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_target(place, PrivateImages("digits", ReadSettings()))

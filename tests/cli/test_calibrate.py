"""`instahide calibrate`: on images that the run was neither trained nor tested on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from instahide import open_split
from instahide.cli.main import app
from instahide.errors import DataError
from instahide.training.data import unused_images
from instahide.training.data.unused_images import require_unused

TRAIN = ("--scheme", "inside", "--k", "2", "--epochs", "1", "--queries", "0")
DIGITS = open_split("digits")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger.sqlite"))


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def said(*arguments: str) -> str:
    result = invoked(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments: str) -> str:
    network = Path("run/model.safetensors").read_bytes()
    result = invoked("calibrate", "run", *arguments)
    assert result.exit_code == 2, result.output
    assert Path("run/model.safetensors").read_bytes() == network
    return " ".join(result.output.split())


def saved(name: str, rows: slice, *, test: bool = False) -> str:
    """Digits as an archive."""
    part = DIGITS.test if test else DIGITS.train
    np.savez(name, x=part.pixels[rows], y=part.labels[rows])
    return name


def test_other_images_calibrate_a_network_and_its_own_are_refused() -> None:
    """By content: also under another name, of its test part, and among others."""
    trained = saved("train.npz", slice(0, 400))
    tested = saved("test.npz", slice(0, 100), test=True)
    said("train", trained, "--test", tested, *TRAIN, "--out", "run")
    for own, count in ((trained, 400), (tested, 100)):
        shutil.copy(own, f"copy-{own}")
        for name in (own, f"copy-{own}"):
            assert f"trained or tested on {count} of the {count} images" in refused(name)
    mixed = saved("mixed.npz", slice(390, 450))
    assert "10 of the 60 images in mixed.npz (rows 0, 1, 2, 3, 4, ...)" in refused(mixed)
    assert "has never used" in refused("digits")
    result = said("calibrate", "run", saved("further.npz", slice(400, 800)))
    assert "Logits of plain images" in result
    assert "cannot be read" not in result


def test_images_that_were_split_off_for_testing_are_the_runs_own() -> None:
    said("train", "digits", *TRAIN, "--out", "run")
    assert f"on {len(DIGITS.test)} of the {len(DIGITS.test)} images in digits" in refused("digits")


def test_of_a_run_on_encodings_the_test_images_are_known() -> None:
    said("encrypt", saved("train.npz", slice(0, 400)), "--scheme", "inside", "--k", "2",
         "--copies", "1", "--out", "encoded")  # fmt: skip
    tested = saved("test.npz", slice(0, 100), test=True)
    said("train", "encoded", "--test", tested, "--epochs", "1", "--out", "run")
    assert "100 of the 100 images" in refused(tested)
    further = saved("further.npz", slice(400, 800))
    assert "cannot be read" not in said("calibrate", "run", further, "--queries", "0")


def test_without_the_images_of_the_run_names_are_compared_and_a_note_says_so() -> None:
    trained = saved("train.npz", slice(0, 400))
    said("train", trained, *TRAIN, "--out", "run")
    settings = json.loads(Path("run/settings.json").read_text())
    Path("run/settings.json").write_text(json.dumps(settings | {"data": "gone.npz"}))
    assert "cannot be read" in said("calibrate", "run", saved("further.npz", slice(400, 800)))
    # Read as the run was, with a table of labels that is gone, it cannot be.
    Path("run/settings.json").write_text(
        json.dumps(settings | {"data": "further.npz", "labels": "gone.csv"})
    )
    assert "trained or tested on further.npz" in refused("further.npz")


def test_of_a_run_whose_images_are_gone_the_test_images_are_compared() -> None:
    tested = saved("test.npz", slice(0, 100), test=True)
    said("train", saved("train.npz", slice(0, 400)), "--test", tested, *TRAIN, "--out", "run")
    Path("train.npz").unlink()
    assert "100 of the 100 images" in refused(tested)
    further = said("calibrate", "run", saved("further.npz", slice(400, 800)), "--queries", "0")
    assert "(train.npz) cannot be read" in further


def test_further_images_of_the_same_patients_are_refused() -> None:
    """Other pictures, but of a group that the run has learned."""
    generator = np.random.default_rng(0)
    for name, patients in (("old", range(20)), ("same", range(19, 39)), ("new", range(20, 40))):
        Path(name).mkdir()
        rows = ["file,class,patient"]
        for number, patient in enumerate(patients):
            for view in range(2):
                pixels = generator.integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels).save(Path(name, f"{number}-{view}.png"))
                rows.append(f"{number}-{view}.png,{number % 2},p{patient}")
        Path(f"{name}.csv").write_text("\n".join(rows))

    def table(name: str) -> tuple[str, ...]:
        return (name, "--labels", f"{name}.csv", "--label-columns", "class",
                "--group-column", "patient")  # fmt: skip

    said("train", *table("old"), *TRAIN, "--out", "run")
    assert "2 of the 40 images in same (rows 0, 1)" in refused(*table("same"))
    said("calibrate", "run", *table("new"))


def test_images_of_every_process_of_a_run_are_its_own() -> None:
    said("train", saved("part0.npz", slice(0, 400)), *TRAIN, "--out", "run")
    saved("part1.npz", slice(400, 800))
    saved("tested.npz", slice(0, 100), test=True)
    # The files of a run of two processes, each with images of its own.
    settings = json.loads(Path("run/settings.json").read_text())
    settings |= {"data": "part{rank}.npz", "test": "tested.npz"}
    Path("run/settings.json").write_text(json.dumps(settings))
    data = json.loads(Path("run/data.json").read_text())
    Path("run/data.json").write_text(json.dumps(data | {"fingerprints": data["fingerprints"] * 2}))
    for rank in range(2):
        shutil.copy(f"part{rank}.npz", "copy.npz")
        assert "trained or tested on 400 of the 400 images" in refused("copy.npz")
    further = saved("further.npz", slice(800, 1200))
    assert "cannot be read" not in said("calibrate", "run", further, "--queries", "0")
    Path("part1.npz").unlink()
    assert "(part1.npz) cannot be read" in said("calibrate", "run", further)
    shutil.copy("part0.npz", "copy.npz")
    assert "trained or tested on 400 of the 400 images" in refused("copy.npz")


def test_a_fit_to_few_images_says_so() -> None:
    said("train", saved("train.npz", slice(0, 400)), *TRAIN, "--out", "run")
    few = said("calibrate", "run", saved("few.npz", slice(400, 410)), "--queries", "0")
    assert "10 images determine a scale only roughly" in few


def test_the_test_part_of_a_source_is_compared_where_the_split_cannot_be_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise DataError("The images have changed.", "Start a new run.")

    said("train", "digits", *TRAIN, "--out", "run")
    monkeypatch.setattr(unused_images, "open_private", refused)
    for part in DIGITS:
        with pytest.raises(DataError, match=f"on {len(part):,} of the {len(part):,} images"):
            require_unused(part, "copy", Path("run"))

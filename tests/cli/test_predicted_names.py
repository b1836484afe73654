"""Names of files and groups: in the file of predictions, in their place, and nowhere else."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instahide import LabelTable
from instahide.cli.main import app
from instahide.data import open_test
from instahide.data.sources import open_named_test

INSIDE = ["--scheme", "inside", "--k", "2"]
TRAIN = [*INSIDE, "--epochs", "1", "--batch-size", "8", "--queries", "0"]
LABELS = ["--labels", "labels.csv", "--group-column", "patient", "--split-column", "split"]
#: Names that a formula, a terminal or a file could not take as they are, and their cells.
HOSTILE = {
    "=HYPERLINK(1).png": "'=HYPERLINK(1).png",
    "@a;=1+1.png": r"'@a\x3b=1+1.png",
    "line\nbreak\x1b[31m.png": r"line\nbreak\x1b[31m.png",
    "no text \udcff.png": r"no text \udcff.png",
    'comma, and "quotes".png': 'comma, and "quotes".png',
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ledger.sqlite", "cache"):
        monkeypatch.setenv(f"INSTAHIDE_{name.split('.')[0].upper()}", str(tmp_path / name))
    return tmp_path


def ok(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def rows(path: str = "p.csv") -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(path, "png")


def labelled() -> list[tuple[str, str, str, str]]:
    """A folder of images and its table: file, class, patient and part; parts are mixed."""
    found = []
    for number in range(30):
        # As a table may write it.
        name = f"{'./' if number == 29 else ''}sub/Mustermann-{number}.png"
        draw(Path("scans", name), number)
        patient = "" if number == 5 else f"DOE^JOHN {number // 2}"
        part = "test" if number // 2 % 3 == 2 else "train"
        found.append((name, "ill" if number % 2 else "well", patient, part))
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "patient", "split"), *found])
    return found


def predicted(*source: str) -> list[dict[str, str]]:
    ok("predict", "run", *source, "--queries", "0", "--out", "p.csv")
    return rows()


@pytest.fixture
def of_table() -> list[tuple[str, str, str, str]]:
    """`labelled`, with a run in `run`."""
    found = labelled()
    # At the usual rate, three steps can end in a network that is certain of one class.
    ok("train", "scans", *LABELS, *TRAIN, "--lr", "0.001", "--out", "run")
    return found


def test_a_table_of_labels_names_files_and_groups_of_the_predicted_part(of_table) -> None:
    expected = [(file, patient) for file, _, patient, part in of_table if part == "test"]
    found = predicted("scans", *LABELS)
    assert [(row["file"], row["group"]) for row in found] == expected
    assert [row["image"] for row in found] == [str(n) for n in range(len(expected))]
    assert list(found[0])[:5] == ["image", "file", "group", "class", "probability"]


def test_each_row_is_about_the_file_that_it_names(of_table) -> None:
    by_file = {row["file"]: row for row in predicted("scans", *LABELS)}
    for file in list(by_file)[:3]:
        Path("one.csv").write_text(f"file,label,patient\n{file},well,\n")
        (alone,) = predicted("scans", "--labels", "one.csv", "--group-column", "patient")
        same = by_file[file]
        assert (alone["file"], alone["group"]) == (file, "")
        # Rounded to 4 digits, and batches of other sizes may differ in the last bit.
        expected = pytest.approx(float(same["probability:well"]), abs=2e-4)
        assert float(alone["probability:well"]) == expected
    assert len({row["probability:well"] for row in by_file.values()}) > 1


def test_without_a_group_column_there_is_none(of_table) -> None:
    found = predicted("scans", *LABELS[:2], *LABELS[4:])
    assert "file" in found[0]
    assert "group" not in found[0]


def test_files_left_out_have_no_row_and_move_no_name(of_table) -> None:
    files = [file for file, _, _, part in of_table if part == "test"]
    Path("scans", files[0]).unlink()
    Path("scans", files[2]).write_bytes(b"no image")
    kept = [file for number, file in enumerate(files) if number not in (0, 2)]
    for _ in range(2):  # The second time from the cache.
        assert [row["file"] for row in predicted("scans", *LABELS, "--skip-bad")] == kept
    for notes in Path("cache").glob("*/.notes-*"):
        notes.unlink()  # Which rows are which files is found out again.
    assert [row["file"] for row in predicted("scans", *LABELS, "--skip-bad")] == kept


def test_class_folders_name_files_below_the_source() -> None:
    for number in range(40):
        part = "test" if number >= 28 else "train"
        draw(Path("data", part, "cat" if number % 2 else "dog", "deep", f"{number}.png"), number)
    ok("train", "data", *TRAIN, "--out", "run")
    expected = [
        f"{name}/deep/{number}.png"
        for name, first in (("cat", 29), ("dog", 28))
        for number in range(first, 40, 2)
    ]
    assert [row["file"] for row in predicted("data")] == [f"test/{name}" for name in expected]
    found = predicted("data/test")
    assert [row["file"] for row in found] == expected
    assert "group" not in found[0]


def test_hostile_names_are_escaped() -> None:
    for number in range(20):
        draw(Path("data", "=cat" if number % 2 else "dog", f"{number}.png"), number)
    ok("train", "data", *TRAIN, "--out", "run")
    for number, name in enumerate(HOSTILE):
        draw(Path("other", "=cat", name), number)
        draw(Path("other", "dog", name), number + 50)
    found = predicted("other")
    cells = {f"'=cat/{cell.removeprefix(chr(39))}" for cell in HOSTILE.values()}
    cells |= {f"dog/{cell.removeprefix(chr(39))}" for cell in HOSTILE.values()}
    assert {row["file"] for row in found} == cells
    assert {row["class"] for row in found} <= {"'=cat", "dog"}
    with Path("names.csv").open(
        "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        named = [name for name in HOSTILE if name.isprintable()]
        groups = ["=1+1", " ", "\t=2"]
        csv.writer(file).writerows([("file", "label", "patient")])
        for number, (name, group) in enumerate(zip(named, groups, strict=True)):
            draw(Path("plain", name), number)
            csv.writer(file).writerow((name, "dog" if number else "=cat", group))
    found = predicted("plain", "--labels", "names.csv", "--group-column", "patient")
    assert [row["file"] for row in found] == [HOSTILE[name] for name in named]
    assert [row["group"] for row in found] == ["'=1+1", "", "'=2"]


def test_arrays_have_no_names() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez("images.npz", images=pixels, labels=np.arange(40) % 2)
    ok("train", "images.npz", *TRAIN, "--out", "run")
    assert list(predicted("images.npz")[0]) == [
        "image", "class", "probability", "probability:0", "probability:1",
    ]  # fmt: skip
    assert open_named_test("images.npz").names is None


def written(place: Path) -> Iterator[Path]:
    given = {place / "scans", place / "labels.csv", place / "p.csv"}
    for path in place.rglob("*"):
        if path.is_file() and not given & {path, *path.parents}:
            yield path


def test_no_other_file_and_no_output_has_a_name(of_table, place: Path) -> None:
    output = ok("train", "scans", *LABELS, *TRAIN, "--out", "again")
    output += ok("encrypt", "scans", *LABELS, *INSIDE, "--out", "encoded")
    output += ok("predict", "run", "scans", *LABELS, "--queries", "2", "--out", "p.csv")
    output += ok("predict", "run", "scans", *LABELS, "--queries", "0", "--out", "p.csv", "--json")
    assert "p.csv holds the names of files and groups. Keep it private." in output
    assert any("DOE^JOHN" in row["group"] for row in rows())
    assert oct(Path("p.csv").stat().st_mode & 0o777) == "0o600"
    files = list(written(place))
    kinds = {path.suffix for path in files}
    assert kinds >= {".npy", ".safetensors", ".json", ".sqlite"}, kinds
    for path in files:
        content = path.read_bytes() + str(path).encode()
        # Not a shorter part: three given bytes are in a megabyte of weights by chance.
        assert not [name for name in (b"DOE^JOHN", b"^JOHN", b"Mustermann") if name in content], (
            path
        )
    assert "DOE" not in output
    assert "Mustermann" not in output


def test_tables_and_what_shows_names_hold_none() -> None:
    labelled()
    labels = LabelTable("labels.csv", group_column="patient", split_column="split")
    table = open_test("scans", labels=labels, progress=False)
    assert b"DOE^JO" not in pickle.dumps(table)
    assert b"Mustermann" not in pickle.dumps(table)
    opened = open_named_test("scans", labels=labels, progress=False)
    assert opened.names is not None
    assert "DOE" not in repr(opened) + str(opened.names)
    assert "Mustermann" not in repr(opened) + str(opened.names)

"""Tables of labels, groups and parts for the images of a folder."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from instahide import LabelTable
from instahide.cli.main import app
from instahide.data import open_images, open_split, open_test
from instahide.data.readers.skipped import SkippedWarning
from instahide.errors import InstaHideError

ROWS = [
    ("file", "class", "mass", "nodule", "age", "patient", "split"),
    ("one.png", "ill", "1", "", "40.5", "DOE^JOHN", "train"),
    ("two.png", "well", "0", "1", "41", "DOE^JOHN", "train"),
    ("three.png", "ill", "0", "0.5", "3", "ROE^JANE", "Training"),
    ("four.png", "well", "yes", "no", "77", "", "train"),
    ("five.png", "ill", "1", "0", "12", "POE^ANN", "test"),
    ("six.png", "well", "1", "0", "13", "", "test"),
]
NAMES = ("DOE", "JOHN", "ROE", "JANE", "POE", "one.png", "three.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "scans"
    root.mkdir()
    for number, (name, *_) in enumerate(ROWS[1:]):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(root / name)
    return root


def table(folder: Path, rows: object = ROWS, **options: object) -> LabelTable:
    path = folder.parent / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return LabelTable(path, **options)


def opened(folder: Path, labels: LabelTable, opening=open_images, **options: object):
    return opening(folder, labels=labels, progress=False, **options)


def test_classes_are_numbered_by_name(folder):
    images = opened(folder, table(folder, label_columns=["class"]))
    assert images.classes == ("ill", "well")
    assert images.labels.tolist() == [0, 1, 0, 1, 0, 1]
    expected = [np.asarray(Image.open(folder / name)) for name, *_ in ROWS[1:]]
    np.testing.assert_array_equal(images.pixels[:, 0], expected)


def test_several_columns_are_findings_and_an_empty_field_is_unknown(folder):
    images = opened(folder, table(folder, label_columns=("mass", "nodule")))
    assert (images.task, images.classes) == ("multi-label", ("mass", "nodule"))
    expected = [[1, np.nan], [0, 1], [0, 0.5], [1, 0], [1, 0], [1, 0]]
    np.testing.assert_array_equal(images.labels, np.asarray(expected, np.float32))


def test_measured_values(folder):
    images = opened(folder, table(folder, label_columns=("age",), task="regression"))
    assert images.labels[:, 0].tolist() == [40.5, 41, 3, 77, 12, 13]


def test_a_group_counts_as_one_picture(folder):
    images = opened(folder, table(folder, label_columns=["class"], group_column="patient"))
    ids = images.content_ids
    assert ids[0] == ids[1]
    assert len(set(ids.tolist())) == 5
    again = opened(folder, table(folder, label_columns=["class"], group_column="patient"))
    np.testing.assert_array_equal(again.groups, images.groups)


def test_a_split_column(folder):
    labels = table(folder, label_columns=["class"], split_column="split", group_column="patient")
    train, test = opened(folder, labels, open_split)
    assert (len(train), len(test)) == (4, 2)
    assert (len(opened(folder, labels)), len(opened(folder, labels, open_test))) == (4, 2)
    assert test.mean == train.mean


def test_validation_images_beside_test_images_are_left_out_and_said(folder):
    rows = [*ROWS[:4], (*ROWS[4][:-1], "val"), *ROWS[5:]]
    labels = table(folder, rows, label_columns=["class"], split_column="split")
    with pytest.warns(SkippedWarning, match="validation images"):
        train, test = opened(folder, labels, open_split)
    assert (len(train), len(test)) == (3, 2)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=6, max_size=6))
def test_a_drawn_split_never_divides_a_group(folder, groups):
    rows = [("file", "class", "patient")]
    rows += [(row[0], row[1], group) for row, group in zip(ROWS[1:], groups, strict=True)]
    labels = table(folder, rows, label_columns=["class"], group_column="patient")
    try:
        train, test = opened(folder, labels, open_split)
    except InstaHideError:
        # Too few groups of a class for two parts.
        assert len(set(groups) - {""}) + groups.count("") < 5
        return
    assert len(train) + len(test) == 6
    both = [
        {tuple(group) for group in part.groups.tolist() if any(group)} for part in (train, test)
    ]
    assert not both[0] & both[1]


def test_parquet_reads_like_csv(folder):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = folder.parent / "labels.parquet"
    columns = {
        "file": [row[0] for row in ROWS[1:]],
        "mass": [1.0, 0, 0, 1, 1, 1],
        "nodule": [None, 1, 0.5, 0, 0, 0],
    }
    pq.write_table(pa.table(columns), path)
    columns = ("mass", "nodule")
    fast = opened(folder, LabelTable(path, label_columns=columns))
    slow = opened(folder, table(folder, label_columns=columns))
    np.testing.assert_array_equal(fast.labels, slow.labels)
    with pytest.raises(InstaHideError, match="no single column named 'size'"):
        opened(folder, LabelTable(path, label_columns=("size",)))


def changed(row: int, column: int, value: str) -> list[tuple[str, ...]]:
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, {"label_columns": ["cancer"]}, "no columns named 'cancer'"),
        (ROWS, {"label_columns": ["class"], "image_column": "path"}, "no columns named 'path'"),
        (ROWS, {"label_columns": ["mass", "class"]}, "Row 1 .*column 'class' holds no number"),
        (ROWS[:1], {"label_columns": ["class"]}, "has no rows"),
        ([ROWS[0], ROWS[1][:-1]], {"label_columns": ["class"]}, "Row 1 .* has 6 fields"),
        (changed(2, 0, "one.png"), {"label_columns": ["class"]}, "Row 1 .* and Row 2 .* the same"),
        (changed(2, 0, "../a.png"), {"label_columns": ["class"]}, "Row 2 .*no file inside"),
        (changed(2, 0, "/a.png"), {"label_columns": ["class"]}, "Row 2 .*no file inside"),
        (changed(2, 0, "gone.png"), {"label_columns": ["class"]}, "Row 2 .*cannot be read"),
        *(
            (changed(2, 1, text), {"label_columns": ["class"]}, f"Row 2 .*no class, but '{text}'")
            for text in ("", "NA", "nan", "N/A", "NULL")
        ),
        (changed(2, 2, "-1"), {"label_columns": ["mass", "nodule"]}, "from -1 to 1"),
        (changed(2, 4, "4_1"), {"label_columns": ["age"], "task": "regression"}, "Row 2 .*'age'"),
        (
            changed(2, 4, "\uff14\uff11"),
            {"label_columns": ["age"], "task": "regression"},
            "Row 2 .*'age'.*digits 0 to 9",
        ),
        (
            changed(2, 4, "16777217"),
            {"label_columns": ["age"], "task": "regression"},
            "row 2 .*'age', would be rounded",
        ),
        (changed(2, 4, ""), {"label_columns": ["age"], "task": "regression"}, "not a finite"),
        (changed(2, 6, "x"), {"label_columns": ["class"], "split_column": "split"}, "Row 2"),
        (
            changed(2, 6, "test"),
            {"label_columns": ["class"], "split_column": "split", "group_column": "patient"},
            "Row 1 .* for training and Row 2 .* for testing",
        ),
        (ROWS, {"label_columns": ["mass", "nodule"], "task": "single-label"}, "do not fit"),
    ],
)
def test_what_is_not_usable_is_refused_without_a_name_of_a_person(folder, rows, options, message):
    with pytest.raises(InstaHideError, match=message) as caught:
        opened(folder, table(folder, rows, **options))
    assert not any(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"label_columns": ["class"], "group_column": "class"}, [0, 1, 0, 1, 0, 1]),
        ({"label_columns": ["class"], "group_column": "file"}, [0, 1, 2, 3, 4, 5]),
        ({"label_columns": ["mass", "nodule"], "group_column": "nodule"}, [0, 1, 2, 3, 4, 4]),
        ({"label_columns": ["file"], "group_column": "file"}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_column_may_be_used_twice(folder, suffix, options, groups):
    labels = table(folder, **options)
    if suffix == "parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        path = folder.parent / "labels.parquet"
        columns = {name: [row[place] for row in ROWS[1:]] for place, name in enumerate(ROWS[0])}
        pq.write_table(pa.table(columns), path)
        labels = LabelTable(path, **options)
    images = opened(folder, labels)
    assert images.content_ids.tolist() == groups
    assert len(images) == 6


def test_classes_that_all_agreed_on(folder):
    labels = table(folder, label_columns=["class"])
    images = opened(folder, labels, classes=("well", "unsure", "ill"))
    assert images.labels.tolist() == [2, 0, 2, 0, 2, 0]
    with pytest.raises(InstaHideError, match=r"Row 1 .* class 'ill'"):
        opened(folder, labels, classes=("well", "unsure"))


def test_a_damaged_image_is_called_by_its_row(folder):
    (folder / "three.png").write_bytes(b"no image")
    labels = table(folder, label_columns=["class"], group_column="patient")
    with pytest.raises(InstaHideError, match=r"The image of row 3 of .*labels\.csv") as caught:
        opened(folder, labels)
    assert "three.png" not in str(caught.value)
    with pytest.warns(SkippedWarning, match="row 3") as said:
        images = opened(folder, labels, skip_bad=True)
    assert "three.png" not in str(said[0].message)
    assert images.labels.tolist() == [0, 1, 1, 0, 1]
    # The groups are still those of the rows that were read.
    assert images.content_ids[0] == images.content_ids[1]
    assert len(set(images.content_ids.tolist())) == 4


def test_neither_names_of_files_nor_groups_are_stored(folder, cache):
    labels = table(folder, label_columns=["class"], group_column="patient")
    (folder / "three.png").write_bytes(b"no image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedWarning)
        opened(folder, labels, skip_bad=True)
        opened(folder, labels, open_split, skip_bad=True)
    stored = [path for path in cache.rglob("*") if path.is_file()]
    assert stored
    for path in stored:
        content = path.read_bytes() + str(path).encode()
        # Three given bytes can be in the pixels by chance.
        names = [name for name in NAMES if len(name) > 3 or path.suffix == ".json"]
        assert not any(name.encode() in content for name in names)


def test_labels_change_with_the_table_although_the_images_are_cached(folder):
    opened(folder, table(folder, label_columns=["class"]))
    images = opened(folder, table(folder, changed(1, 1, "well"), label_columns=["class"]))
    assert images.labels.tolist() == [1, 1, 0, 1, 0, 1]


def test_labels_for_what_has_labels_of_its_own_are_refused(folder):
    with pytest.raises(InstaHideError, match="labels of its own"):
        open_images("digits", labels=table(folder, label_columns=["class"]))


def command(*arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert not any(name in done.output for name in NAMES)
    return done.output


def test_the_command_line_trains_and_predicts_by_a_table(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger"))
    rows = [("file", "class", "patient", "split")]
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 4096, (8, 8)).astype(np.uint16)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        part = "train" if number < 16 else "test"
        rows.append((f"{number}.png", ("ill", "well")[number % 2], f"p{number // 2}", part))
    labels = table(folder, rows)
    options = ("--labels", labels.path, "--label-columns", "class", "--group-column", "patient")
    options = (*options, "--split-column", "split", "--window", "0,4095")
    command(
        "train", folder, *options, "--scheme", "inside", "--k", 2, "--epochs", 1, "--batch-size", 8,
        "--queries", 0, "--model", "small", "--out", tmp_path / "run",
    )  # fmt: skip
    command("predict", tmp_path / "run", folder, *options, "--queries", 0, "--out",
            tmp_path / "p.csv")  # fmt: skip
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 9
    # 16 images of 8 patients: a limit counts patients.
    out = command(
        "encrypt", folder, *options, "--scheme", "inside", "--k", 2, "--out", tmp_path / "out",
        "--json",
    )  # fmt: skip
    assert out
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert '"value_range"' in manifest
    assert "labels.csv" not in manifest
    assert ".png" not in manifest


def test_labels_and_a_folder_of_test_images_are_refused(folder, tmp_path):
    labels = table(folder, label_columns=["class"])
    done = CliRunner().invoke(
        app, ["train", str(folder), "--labels", str(labels.path), "--test", str(folder)]
    )
    assert done.exit_code == 2
    assert "`--test`" in done.output

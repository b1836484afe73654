"""Nothing in a folder of images is left out, or taken for what it is not, without a word."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instahide import open_images, open_split
from instahide.data import open_test
from instahide.data.readers.skipped import SkippedWarning
from instahide.data.readers.split_folders import split_of
from instahide.errors import InstaHideError

RNG = np.random.default_rng(3)


def put(path: Path, values: np.ndarray | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8) if values is None else values
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder; the cache of the test lies beside it."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def quiet(source: Path, **options: object) -> object:
    return open_images(source, progress=False, **options)


@pytest.mark.parametrize("suffix", [".jfif", ".JPG", ".jpe", ".apng", ".pbm", ".DIB"])
def test_every_usual_name_of_an_allowed_format_is_read(root, suffix):
    for name in ("a", "b"):
        put(root / name / f"0{suffix}", format="PNG")
    assert len(quiet(root)) == 2


def test_classes_may_begin_with_an_underscore_and_lie_behind_links(root):
    store = root.parent / "store"
    for name in ("_negative", "a"):
        put(root / name / "0.png")
        put(store / name / "1.png")
        (root / name / "site2").symlink_to(store / name)
    put(store / "linked" / "2.png")
    (root / "linked").symlink_to(store / "linked")
    table = quiet(root)
    assert table.classes == ("_negative", "a", "linked")
    assert len(table) == 5


def test_links_that_lead_back_end_and_are_said(root):
    put(root / "a" / "0.png")
    put(root / "b" / "deep" / "0.png")
    (root / "b" / "deep" / "up").symlink_to(root / "b")
    (root / "b" / "self").symlink_to(root / "b" / "deep")
    with pytest.warns(SkippedWarning, match="read already: 2"):
        assert len(quiet(root)) == 2


def test_links_that_multiply_take_no_more_time_than_folders_there_are(root):
    put(root / "a" / "0.png")
    for level in range(20):
        folder = root.parent / "store" / str(level)
        folder.mkdir(parents=True)
        for twice in "xy":
            (folder / twice).symlink_to(root.parent / "store" / str(level + 1))
    put(root.parent / "store" / "20" / "0.png")
    put(root / "a" / "0.png")
    (root / "b").symlink_to(root.parent / "store" / "0")
    with pytest.warns(SkippedWarning, match="read already: 20"):
        assert len(quiet(root)) == 2


def test_other_files_and_images_outside_classes_are_said_at_every_opening(root):
    for name in ("a", "b"):
        put(root / name / "0.png")
    put(root / "stray.png")
    (root / "a" / "scan.mha").touch()
    (root / "a" / "notes.txt").touch()
    for name in (".DS_Store", "Thumbs.db", "._0.png"):
        (root / "a" / name).touch()
    put(root / "__MACOSX" / "c.png")
    for _ in range(2):
        with pytest.warns(SkippedWarning) as caught:
            assert quiet(root).classes == ("a", "b")
        (text,) = (str(each.message) for each in caught)
        assert "stray.png" in text
        assert "not named like images: 2" in text
        assert "DS_Store" not in text


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_further_frames_and_pages_are_said_at_every_opening(root, kind):
    put(root / "a" / "0.png")
    more = [Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(2)]
    put(root / "b" / "0.png", format=kind, save_all=True, append_images=more)
    for _ in range(2):
        with pytest.warns(SkippedWarning, match=r"frames or pages.*b/0\.png"):
            assert len(quiet(root)) == 2


def test_what_was_skipped_as_bad_is_said_at_every_opening(root):
    for name in ("a", "b"):
        put(root / name / "0.png")
    (root / "a" / "zero.jpg").touch()
    for _ in range(2):
        with pytest.warns(SkippedWarning, match=r"Skipped 1 of 3 files.*zero\.jpg"):
            assert len(quiet(root, skip_bad=True)) == 2


@pytest.mark.parametrize("kind", ["dangling", "pipe"])
def test_what_is_no_file_is_named_or_skipped_and_said(root, kind):
    for name in ("a", "b"):
        put(root / name / "0.png")
    bad = root / "a" / "x.jpg"
    if kind == "dangling":
        bad.symlink_to("/nowhere/annex/x.jpg")
    else:
        os.mkfifo(bad)
    with pytest.raises(InstaHideError, match=r"x\.jpg"):
        quiet(root)
    with pytest.warns(SkippedWarning, match=r"Skipped 1 of 3.*x\.jpg"):
        assert len(quiet(root, skip_bad=True)) == 2


def test_names_in_a_warning_cannot_rewrite_the_terminal(root):
    for name in ("a", "b"):
        put(root / name / "0.png")
    (root / "a" / "\x1b[2Jnote\u202e.txt").touch()
    with pytest.warns(SkippedWarning) as caught:
        quiet(root)
    assert str(caught[0].message).isprintable()


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"), ("train", "test"), ("TRAIN", "Val"), ("trainset", "testset"),
        ("train_images", "test-images"), ("Train2017", "val2017"), ("TrainingData", "Validation"),
    ],
)  # fmt: skip
def test_parts_are_known_however_they_are_spelled(root, train, test):
    for part, count in ((train, 3), (test, 2)):
        for name in ("glioma", "none"):
            for number in range(count):
                put(root / part / name / f"{number}.png")
    split = open_split(root, progress=False)
    assert split.train.classes == split.test.classes == ("glioma", "none")
    assert (len(split.train), len(split.test)) == (6, 4)
    assert len(quiet(root)) == 6
    assert len(open_test(root, progress=False)) == 4


@pytest.mark.parametrize(
    "name", ["trainer", "latest", "contest", "training dog", "valve", "猫train"]
)
def test_other_names_are_no_parts(name):
    assert split_of(name) is None


def test_a_third_part_is_said(root):
    for part in ("train", "val", "test"):
        for name in ("a", "b"):
            put(root / part / name / "0.png")
    for opening in (open_split, open_images, open_test):
        with pytest.warns(SkippedWarning, match="next to the training and test folders: .*val"):
            opening(root, progress=False)


@pytest.mark.parametrize(
    "folders",
    [
        ["train/a", "train/b"],
        ["Testing/a", "Testing/b"],
        ["train", "test"],
        ["train/a", "train/b", "test"],
        ["train/a", "Training/a", "test/a"],
        ["train/a", "train/b", "more/a", "more/b"],
        ["cat/train", "cat/test", "dog/train", "dog/test"],
    ],
)
def test_what_could_be_parts_or_classes_is_refused(root, folders):
    for folder in folders:
        put(root / folder / "0.png")
    for opening in (open_split, open_images, open_test):
        with pytest.raises(InstaHideError):
            opening(root, progress=False)


@pytest.mark.parametrize(
    "folders", [["train", "bus", "car"], ["train", "test", "bus"], ["val/0", "leu/1", "ile/2"]]
)
def test_classes_may_be_called_like_parts(root, folders):
    for folder in folders:
        put(root / folder / "0.png")
    assert quiet(root).classes == tuple(sorted(folder.split("/")[0] for folder in folders))


def test_naming_all_classes_says_what_is_a_class(root):
    for name in ("train", "test"):
        put(root / name / "0.png")
    assert quiet(root, classes=["test", "train"]).classes == ("test", "train")


def test_a_class_may_be_empty_but_not_by_mistake(root):
    put(root / "ill" / "0.png")
    (root / "healthy").mkdir()
    with pytest.warns(SkippedWarning, match="without images: healthy"):
        table = quiet(root)
    assert table.classes == ("healthy", "ill")
    assert table.labels.tolist() == [1]
    (root / "healthy" / "scan.mha").touch()
    with pytest.raises(InstaHideError, match="healthy holds no image files"):
        quiet(root)


def test_named_classes_are_numbered_as_given_and_others_refused(root):
    put(root / "ill" / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = quiet(root, classes=["well", "ill", "unsure"])
    assert table.classes == ("well", "ill", "unsure")
    assert table.labels.tolist() == [1]
    with pytest.raises(InstaHideError, match="'ill'"):
        quiet(root, classes=["well", "unsure"])


@pytest.mark.parametrize("classes", [[], ["a", "a"], ["a", ""], ["a", "b\n"], "ab", ["a", 1]])
def test_class_lists_that_are_none_are_refused(root, classes):
    put(root / "a" / "0.png")
    with pytest.raises(InstaHideError):
        quiet(root, classes=classes)


def test_twelve_bits_beside_eight_are_refused_as_they_have_no_common_range(root):
    for number in range(3):
        put(root / "well" / f"{number}.png")
        put(root / "ill" / f"{number}.png", RNG.integers(0, 4096, (8, 8)).astype(np.uint16))
    with pytest.raises(InstaHideError, match="differ in kind"):
        quiet(root)


def test_training_and_test_images_of_different_depth_keep_their_values(root):
    highest = {"train": 4095, "test": 1023}
    for part, most in highest.items():
        for name in ("a", "b"):
            values = RNG.integers(0, most, (8, 8)).astype(np.uint16)
            values[0, 0] = most
            put(root / part / name / "0.png", values)
    for _ in range(2):
        train, test = open_split(root, progress=False)
        assert (train.pixels.max(), test.pixels.max()) == (4095, 1023)
        assert test.value_range == train.value_range


def test_training_and_test_images_of_different_types_are_refused(root):
    for name in ("a", "b"):
        put(root / "train" / name / "0.png", RNG.integers(0, 4096, (8, 8)).astype(np.uint16))
        put(root / "test" / name / "0.png", RNG.integers(0, 256, (8, 8)).astype(np.uint8))
    with pytest.raises(InstaHideError, match="Training images are uint16, but test images uint8"):
        open_split(root, progress=False)


def test_names_that_cannot_be_paths_are_refused():
    for name in ("x" * 5000, "a\0b", "\udcff", "loop/" * 2000):
        with pytest.raises(InstaHideError):
            open_images(name)

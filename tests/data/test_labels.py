"""Labels of several findings and of measured values: matched by name, and refused where wrong."""

from __future__ import annotations

import numpy as np
import pytest

from instahide import ImageTable
from instahide.data.class_names import with_classes
from instahide.data.labels import matched_labels, output_columns, require_one_task
from instahide.data.splits import Split, make_split, require_trainable, split_table
from instahide.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 6), np.uint8)
FINDINGS = np.array([[0, 1], [1, 0], [np.nan, 1], [1, 1]] * 2, np.float32)
VALUES = np.arange(8, dtype=np.float32)[:, None]


def findings(
    labels: np.ndarray = FINDINGS, names: tuple[str, ...] = ("mass", "fluid")
) -> ImageTable:
    return ImageTable.from_arrays(PIXELS, labels, names, task="multi-label")


def values(labels: np.ndarray = VALUES) -> ImageTable:
    return ImageTable.from_arrays(PIXELS, labels, ["age"], task="regression")


def test_columns_are_matched_by_name_and_those_that_are_not_stated_are_unknown() -> None:
    found = matched_labels(FINDINGS, ("mass", "fluid"), ("fluid", "nodule", "mass"), "multi-label")
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_array_equal(found[:, [2, 0]], FINDINGS)
    assert found.dtype == np.float32


def test_classes_are_matched_by_name() -> None:
    numbers = np.array([0, 1, 1])
    found = matched_labels(numbers, ("cat", "dog"), ("dog", "eel", "cat"), "single-label")
    assert found.tolist() == [2, 0, 0]
    with pytest.raises(DataError, match="no class bird"):
        output_columns(["bird"], ["cat"])


def test_a_regression_needs_every_value() -> None:
    with pytest.raises(DataError, match="lack the value 'dose'"):
        matched_labels(VALUES, ("age",), ("age", "dose"), "regression")


def test_named_findings_may_be_more_than_a_participant_has() -> None:
    table = with_classes(findings(), ("mass", "nodule", "fluid"))
    assert np.isnan(table.labels[:, 1]).all()
    assert table.classes == ("mass", "nodule", "fluid")
    unnamed = findings(names=("0", "1"))
    assert with_classes(unnamed, ("mass", "fluid")).classes == ("mass", "fluid")
    with pytest.raises(DataError, match="2 columns without names, but 3"):
        with_classes(unnamed, ("mass", "fluid", "nodule"))


def test_tasks_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match=r"a are regression, those of b multi-label"):
        require_one_task(["regression", "multi-label"], ["a", "b"])
    with pytest.raises(DataError, match="training images are multi-label, those of the test"):
        make_split(findings(), values())
    with pytest.raises(DataError, match="other columns"):
        make_split(findings(), findings(names=("fluid", "mass")))


def named(labels: list[int], *classes: str) -> ImageTable:
    return ImageTable.from_arrays(PIXELS[: len(labels)], np.array(labels), classes)


@pytest.mark.parametrize(
    ("train", "test", "classes", "labels"),
    [
        (("cat", "dog"), ("dog", "cat"), ("cat", "dog"), [1, 0]),
        (("cat", "dog", "eel"), ("eel", "dog"), ("cat", "dog", "eel"), [2, 1]),
        (("cat", "dog", "eel"), ("cat", "dog"), ("cat", "dog", "eel"), [0, 1]),
        (("cat", "dog"), ("cat", "dog", "eel"), ("cat", "dog", "eel"), [0, 1]),
        (("0", "1"), ("0", "1", "2"), ("0", "1", "2"), [0, 1]),
    ],
)
def test_a_split_keeps_the_class_of_every_image(
    train: tuple[str, ...], test: tuple[str, ...], classes: tuple[str, ...], labels: list[int]
) -> None:
    split = make_split(named([0, 1, 1], *train), named([0, 1], *test))
    assert split.train.classes == split.test.classes == classes
    assert split.train.labels.tolist() == [0, 1, 1]
    assert split.test.labels.tolist() == labels


@pytest.mark.parametrize("test", [("cat", "eel"), ("0", "1"), ("eel", "cat", "dog")])
def test_test_images_of_a_class_that_is_not_trained_are_refused(test: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"a class '{next(c for c in test if c != 'cat')}'"):
        make_split(named([0, 1], "cat", "dog"), named([0, 1], *test))


@pytest.mark.parametrize("kind", [np.int64, np.uint32, np.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_whole_target_that_float32_does_not_hold_is_refused(kind: type, sign: int) -> None:
    if sign < 0 and kind is np.uint32:
        return
    exact = np.arange(8, dtype=kind)[:, None]
    exact[3] = sign * (1 << 24)
    assert values(exact).labels[3] == sign << 24
    exact[3] += kind(sign)
    with pytest.raises(DataError, match=r"16777217.* would be rounded"):
        values(exact)


def test_fractions_are_stored_as_float32() -> None:
    assert values(np.full((8, 1), 0.1)).labels.dtype == np.float32
    unknown = ImageTable.from_arrays(
        PIXELS, FINDINGS.astype(np.float64), ("mass", "fluid"), task="multi-label"
    )
    np.testing.assert_array_equal(unknown.labels, FINDINGS)


def test_masks_of_segmentation_are_refused() -> None:
    masks = np.zeros((8, 6, 6), np.uint8)
    with pytest.raises(DataError, match=r"segmentation masks.*outlines"):
        ImageTable.from_arrays(PIXELS, masks, task="multi-label")


def test_what_cannot_be_trained_or_tested_on_is_refused() -> None:
    assert require_trainable(split_table(findings(), 0.5)).test.task == "multi-label"
    assert require_trainable(split_table(values(), 0.5)).test.task == "regression"
    single = findings(FINDINGS[:, 1:], ("fluid",))
    assert len(require_trainable(Split(single, single)).train.classes) == 1
    present = findings(np.ones((8, 2), np.float32))
    for name, split in {
        "training": Split(present, findings()), "test": Split(findings(), present),
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=f"No finding is present in some of the {name} images"):
            require_trainable(split)
    with pytest.raises(DataError, match="'age' is the same in all training images"):
        require_trainable(Split(values(np.ones((8, 1), np.float32)), values()))
    with pytest.raises(DataError, match="one test image alone"):
        require_trainable(Split(values(), values().subset(slice(0, 1))))

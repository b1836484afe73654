"""Splits of images into training and test images."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import Hashes
from instahide.data.group_counts import GroupCounts, Strata, group_counts, largest_first, strata_of
from instahide.data.labels import MAX_CLASSES, matched_labels, require_one_task, strata
from instahide.data.readers.window import clipped
from instahide.data.table import ImageTable
from instahide.errors import DataError, InstaHideError

#: A public seed: everybody who splits the same images gets the same test set.
SPLIT_SEED = 20200613


class Split(NamedTuple):
    """Training and test images under the normalization of the training images."""

    train: ImageTable
    test: ImageTable


def table_from_arrays(
    pixels: NDArray[np.generic],
    labels: NDArray[np.generic],
    classes: tuple[str, ...] | None = None,
    sources: Hashes | None = None,
) -> ImageTable:
    """A table from arrays read from a file, with labels (N,) or (N, 1).

    Raises:
        InstaHideError: pixels or labels have a wrong type or shape, or labels are out of range.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    class_count(labels)
    return ImageTable.from_arrays(pixels, labels, classes, sources)


def class_count(labels: NDArray[np.generic]) -> int:
    """The number of classes, numbered from 0.

    Raises:
        DataError: a label is negative or implausibly large.
    """
    lowest, highest = (labels.min(), labels.max()) if labels.size else (0, -1)
    if lowest < 0 or highest >= MAX_CLASSES:
        raise DataError(
            f"Labels run from {lowest} to {highest}.", "Number the classes from 0 without gaps."
        )
    return int(highest) + 1


def make_split(train: ImageTable, test: ImageTable) -> Split:
    """A split from two tables with the same classes.

    Classes are matched by name. One table may lack the last classes of the other.

    Raises:
        DataError: the images of the tables have different shapes or types of pixels, their labels
            have other columns, or the test images have a class that the training images lack.
    """
    if train.shape != test.shape:
        raise DataError(
            f"Training images are {_quoted(train.shape)}, "
            f"but test images are {_quoted(test.shape)}.",
            "Bring image files to one size with `size=32`, and all of them to grey or to colour.",
        )
    if train.pixels.dtype != test.pixels.dtype:
        raise DataError(
            f"Training images are {train.pixels.dtype}, but test images {test.pixels.dtype}.",
            "Bring all of them to one type of pixels.",
        )
    require_one_task([train.task, test.task], ["the training images", "the test images"])
    if train.task != "single-label" and train.classes != test.classes:
        raise DataError(
            "Training and test images have labels of other columns.",
            "Give both the same columns, in one order.",
        )
    if train.task == "single-label":
        train, test = _with_same_classes(train, test)
    # Test images lie within the range that the normalization is of, as those of queries must.
    test = clipped(test, train.value_range)
    return Split(train, test.normalized_like(train))


def _with_same_classes(train: ImageTable, test: ImageTable) -> tuple[ImageTable, ImageTable]:
    """Both tables with the classes of the one that has more, or of ``train``."""
    fewer, more = sorted((train.classes, test.classes), key=len)
    if more[: len(fewer)] == fewer:
        return replace(train, classes=more), replace(test, classes=more)
    unknown = next((name for name in test.classes if name not in train.classes), None)
    if unknown is not None:
        raise DataError(
            f"The test images have a class {unknown!r}, which is none of the training images: "
            f"{', '.join(train.classes[:20])}.",
            "Name the same classes for both, in one order.",
        )
    labels = matched_labels(test.labels, test.classes, train.classes, test.task)
    return train, replace(test, labels=labels, classes=train.classes)


def split_table(table: ImageTable, test_share: float) -> Split:
    """Use ``test_share`` of every class for testing; the same images every time.

    Groups stay together. Classes, or findings, then are in both parts as evenly as groups allow.
    """
    groups = table.group_ids
    if groups is None:
        train, test = stratified_split(strata(table.labels), test_share)
    else:
        train, test = grouped_split(strata_of(table.labels), groups, test_share)
    return make_split(table.subset(train).measured(), table.subset(test))


def stratified_split(
    labels: NDArray[np.int64], test_share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted indices of training and test images, ``test_share`` of every class for testing.

    A class of two or more images has at least one in each part; a class of one is for training.

    Raises:
        InstaHideError: ``test_share`` is not between 0 and 1, or nothing is left for testing.
    """
    _require_share(test_share)
    generator = np.random.default_rng(SPLIT_SEED)
    tested = np.zeros(len(labels), bool)
    for number in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == number))
        count = min(max(round(test_share * len(members)), 1), len(members) - 1)
        tested[members[:count]] = True
    if not tested.any():
        raise DataError(
            "No class has two images, so no image is left for testing.",
            "Use more images, or a `test` folder next to a `train` folder.",
        )
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def grouped_split(
    strata: Strata, groups: NDArray[np.int64], test_share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted indices of training and test images; no group is in both.

    Each stratum has about ``test_share`` of its images in the test part. A stratum in two or more
    groups has images in both parts if other strata allow it; one in a single group is for training.

    Args:
        strata: the strata of the images.
        groups: (N,) numbers from 0, equal for images of one group.
        test_share: share of the images, between 0 and 1.

    Raises:
        InstaHideError: ``test_share`` is not between 0 and 1, or there are no two groups.
    """
    _require_share(test_share)
    counts = group_counts(strata, groups)
    if len(counts) < 2:
        raise DataError(
            "All images are of one group, so no image is left for testing.",
            "Use images of more groups, or name test images of their own.",
        )
    tested = _tested_groups(counts, strata.size, test_share)
    if not tested.any():
        raise DataError(
            "Every group has the only images of some class, so no group is left for testing.",
            "Use more groups, or name test images of their own.",
        )
    return np.flatnonzero(~tested[groups]), np.flatnonzero(tested[groups])


def _tested_groups(counts: GroupCounts, strata: int, share: float) -> NDArray[np.bool]:
    """Which groups are for testing: the largest first, as long as each brings nearer to ``share``.

    Then small groups, for strata that no test image is of.
    """
    totals, held = np.zeros(strata), np.zeros(strata)
    for present, many in counts:
        totals[present] += many
    tested = np.zeros(len(counts), bool)
    order = largest_first(counts, SPLIT_SEED)
    for turn, group in enumerate((*order, *reversed(order))):
        present, many = counts[group]
        if tested[group] or (held[present] + many >= totals[present]).any():
            continue  # It is there already, or nothing of a stratum would be left for training.
        # The squares of the share that each stratum lacks, before and with the group.
        lacking = share * totals[present] - held[present]
        nearer = ((lacking**2 - (lacking - many) ** 2) / totals[present] ** 2).sum() > 0
        missing = turn >= len(order) and not held[present].all()
        if nearer or missing:
            tested[group] = True
            held[present] += many
    return tested


def require_separate_groups(split: Split) -> None:
    """Check that no group is in both parts.

    Raises:
        DataError: some are.
    """
    if split.train.groups is None or split.test.groups is None:
        return
    train, test = (
        {group.tobytes() for group in part.groups if group.any()}
        for part in split
        if part.groups is not None
    )
    if both := len(train & test):
        raise DataError(
            f"{both:,} group{'s are' if both > 1 else ' is'} in both the training and the test "
            "images, so a test would measure how well the network knows them.",
            "Move all images of a group to one part.",
        )


def require_trainable(split: Split) -> Split:
    """The split, after a check that a model can be trained and tested on it.

    Raises:
        DataError: there are no test images; there is only one class; no finding is present in some
            of the training images and absent in others, and likewise in the test images; a value is
            the same in all training images; or a group is in both parts.
    """
    require_separate_groups(split)
    if len(split.test) == 0:
        raise DataError("There are no test images.", "Give at least one of every class.")
    labels, task = split.train.labels, split.train.task
    if task == "single-label" and len(np.unique(labels)) < 2:
        raise DataError(
            "All training images are of one class.", "Give images of at least two classes."
        )
    if task == "multi-label":
        for name, part in zip(("training", "test"), split, strict=True):
            _require_both(part, name)
    if task == "regression":
        if len(split.test) < 2:
            raise DataError("There is one test image alone.", "Give at least two.")
        same = np.flatnonzero((labels == labels[:1]).all(axis=0))
        if len(same):
            raise DataError(
                f"The value {split.train.classes[same[0]]!r} is the same in all training images.",
                "Leave it out of the labels.",
            )
    return split


def _require_both(images: ImageTable, name: str) -> None:
    """Check that some finding is both present and absent."""
    present = (images.labels >= 0.5).any(axis=0)
    absent = (images.labels < 0.5).any(axis=0)
    if not (present & absent).any():
        raise DataError(
            f"No finding is present in some of the {name} images and absent in others.",
            "Give images with and without a finding.",
        )


def _require_share(test_share: float) -> None:
    if not 0 < test_share < 1:
        raise InstaHideError(
            f"The share of test images must lie between 0 and 1, not {test_share}.",
            "Use 0.2, for example.",
        )


def _quoted(shape: tuple[int, ...]) -> str:
    channels, *depth, height, width = shape
    slices = f" x {depth[0]}" if depth else ""
    return f"{width} x {height}{slices} pixels of {channels} channel{'s' if channels > 1 else ''}"

"""The split of a shared data set among participants, which each of them computes by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.data.group_counts import group_counts, largest_first, strata_of
from instahide.data.splits import SPLIT_SEED
from instahide.errors import DataError

#: Fewest images of a participant: with less, mixes have too few partners.
LEAST_IMAGES = 10


def partition(
    labels: NDArray[np.int64],
    parts: int,
    *,
    alpha: float | None = None,
    groups: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Sorted rows of every part; no row is in two of them, and together they are all rows.

    No group is in two parts either; the shares of classes then are as near as groups allow.

    Without ``alpha`` every part has the same share of each class. With it, the shares of a class
    are drawn from a symmetric Dirichlet distribution (Hsu, Qi and Brown, arXiv:1909.06335) with a
    public seed. They are the same for training and test images of the same classes.

    Args:
        labels: (N,) class numbers.
        parts: number of participants.
        alpha: Dirichlet parameter; a smaller value gives fewer classes in a part.
        groups: (N,) numbers from 0, equal for images of one group; None if each is its own.

    Raises:
        DataError: a part would have fewer than `LEAST_IMAGES` images.
    """
    generator = np.random.default_rng(SPLIT_SEED)
    classes = np.unique(labels)
    portions = np.full((len(classes), parts), 1 / parts)
    if alpha is not None:
        portions = generator.dirichlet([alpha] * parts, len(classes))
    if groups is None:
        found = _by_class(labels, portions, generator)
    else:
        found = _by_group(labels, portions, groups)
    least = min(len(rows) for rows in found)
    if least < LEAST_IMAGES:
        raise DataError(
            f"Of {len(labels)} images in {parts} parts, one part would have {least}.",
            "Use fewer participants, more images, or a larger alpha.",
        )
    return found


def _by_class(
    labels: NDArray[np.int64], portions: NDArray[np.float64], generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Rows of every part, which has its of the ``portions`` (classes, parts) of each class."""
    held: list[list[NDArray[np.int64]]] = [[] for _ in range(portions.shape[1])]
    for number, portion in zip(np.unique(labels), portions, strict=True):
        members = generator.permutation(np.flatnonzero(labels == number))
        ends = np.rint(portion.cumsum()[:-1] * len(members)).astype(np.int64)
        for part, rows in zip(held, np.split(members, ends), strict=True):
            part.append(rows)
    return [np.sort(np.concatenate(part)) for part in held]


def _by_group(
    labels: NDArray[np.int64], portions: NDArray[np.float64], groups: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Like `_by_class`, with every group in the part that lacks most of its images."""
    strata = strata_of(labels)
    lacking = portions * np.bincount(strata.numbers, minlength=strata.size)[:, None]
    counts = group_counts(strata, groups)
    part_of = np.zeros(len(counts), np.int64)
    for group in largest_first(counts, SPLIT_SEED):
        present, many = counts[group]
        part_of[group] = (lacking[present] * many[:, None]).sum(axis=0).argmax()
        lacking[present, part_of[group]] -= many
    return [np.flatnonzero(part_of[groups] == part) for part in range(portions.shape[1])]

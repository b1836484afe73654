"""How many images of each class the groups of a data set have, to divide it by whole groups."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data.labels import Labels

#: For each group, the strata that it has images of, and (m,) how many of each.
GroupCounts = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


class Strata(NamedTuple):
    """What parts of a data set should have the same share of: classes, findings, or all images.

    Attributes:
        rows: (L,) an image for each stratum that it is in.
        numbers: (L,) this stratum.
        size: number of strata.
    """

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    size: int


def strata_of(labels: Labels) -> Strata:
    """The class of each image; or the findings that it has, and one stratum of all images."""
    if labels.ndim == 1:
        known, numbers = np.unique(labels, return_inverse=True)
        return Strata(np.arange(len(labels)), numbers.astype(np.int64), len(known))
    # Measured values and unknown findings are in no stratum of their own.
    rows, columns = np.nonzero(labels >= 0.5)
    every = np.full(len(labels), labels.shape[1])
    return Strata(
        np.concatenate([np.arange(len(labels)), rows]),
        np.concatenate([every, columns]).astype(np.int64),
        labels.shape[1] + 1,
    )


def group_counts(strata: Strata, groups: NDArray[np.int64]) -> GroupCounts:
    """The images of each stratum in each of the ``groups`` (N,), which are numbered from 0."""
    pairs, many = np.unique(groups[strata.rows] * strata.size + strata.numbers, return_counts=True)
    owner, present = np.divmod(pairs, strata.size)
    ends = np.searchsorted(owner, np.arange(1, int(groups.max(initial=-1)) + 1))
    return list(zip(np.split(present, ends), np.split(many, ends), strict=True))


def largest_first(counts: GroupCounts, seed: int) -> list[int]:
    """The groups in an order drawn by a public ``seed``, those of more images before others."""
    order = np.random.default_rng(seed).permutation(len(counts))
    sizes = np.asarray([many.sum() for _, many in counts])
    return [int(group) for group in order[np.argsort(-sizes[order], kind="stable")]]

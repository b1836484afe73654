"""The k images of a mix, found exactly by meeting in the middle, as far as that goes.

Huang et al. (ICML 2020, section 4) argue for InstaHide by the k-vector-sum problem: which k of N
known vectors add up to a given one? Trying all of them costs N^k. Meeting in the middle costs
N^(k/2) in time and memory: all sums of one half are sorted, and those of the other half are looked
up in them. Under a mask only absolute values are known, so that each sum is looked up under both
signs of a single value; the other values tell whether it was right.

It runs for real at toy sizes, with coefficients that are known, and counts its steps. Pairs that
agree in the one value by chance come on top: N^k times the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError

#: Encodings are float32: values that stand for one may differ by so much.
TOLERANCE = 1e-5
#: Half sums, at most: 8 bytes each, and as much again to sort them.
MOST_SUMS = 50_000_000
#: Pairs that are compared at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class Found:
    """What was found, and what it took.

    Attributes:
        mixes: (m, k) rows of the pool; more than one where several mixes look the same.
        half_sums: sums that were made, of both halves.
        compared: pairs of them that agreed in the first value and had to be looked at.
    """

    mixes: NDArray[np.int64]
    half_sums: int
    compared: int


def meet_in_the_middle(
    encoding: NDArray[Any],
    pool: NDArray[Any],
    coefficients: NDArray[Any],
    *,
    tolerance: float = TOLERANCE,
) -> Found:
    """Find the images of ``pool`` whose mix has the absolute values of ``encoding``.

    Args:
        encoding: (D,) values, under a mask or not.
        pool: (N, D) normalized images.
        coefficients: (k,) of the mix, in the order of the rows that are handed back; k >= 2.
        tolerance: how far values may differ that stand for one.

    Raises:
        InstaHideError: there are too many half sums to hold.
    """
    pool, weights = np.asarray(pool, np.float64), np.asarray(coefficients, np.float64)
    target = np.abs(np.asarray(encoding, np.float64))
    middle = len(weights) // 2
    left, right = (_arrangements(len(pool), size) for size in (middle, len(weights) - middle))
    first, second = pool[left, 0] @ weights[:middle], pool[right, 0] @ weights[middle:]
    order = np.argsort(second)
    right, second = right[order], second[order]
    compared, mixes = 0, [np.empty((0, len(weights)), np.int64)]
    for sign in (1, -1):
        missing = sign * target[0] - first
        low = np.searchsorted(second, missing - tolerance)
        counts = np.searchsorted(second, missing + tolerance, "right") - low
        compared += int(counts.sum())
        for chosen in _windows(counts):
            places = _ranges(low[chosen], counts[chosen])
            rows = np.hstack([np.repeat(left[chosen], counts[chosen], axis=0), right[places]])
            mixes.append(_agreeing(rows, pool, weights, target, tolerance))
    return Found(np.unique(np.concatenate(mixes), axis=0), len(first) + len(second), compared)


def _arrangements(images: int, size: int) -> NDArray[np.int64]:
    """(m, size) all ordered choices of ``size`` different rows of ``images``."""
    if images**size > MOST_SUMS:
        raise InstaHideError(
            f"{images:,} images give {images**size:,} sums of {size}, more than fit.",
            "Use fewer images, or a smaller k: this attack is for toy sizes.",
        )
    grid = np.indices((images,) * size).reshape(size, -1).T
    different = np.ones(len(grid), bool)
    for one in range(size):
        for other in range(one):
            different &= grid[:, one] != grid[:, other]
    return np.ascontiguousarray(grid[different])


def _windows(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows with something to compare, in groups of about `_BLOCK` pairs."""
    some = np.flatnonzero(counts)
    groups = np.cumsum(counts[some]) // _BLOCK
    return np.split(some, np.flatnonzero(np.diff(groups)) + 1) if len(some) else []


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers from each of ``starts``, as many as ``counts`` says, one after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def _agreeing(
    rows: NDArray[np.int64],
    pool: NDArray[np.float64],
    weights: NDArray[np.float64],
    target: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.int64]:
    """The mixes ``rows`` (m, k), none with an image twice, that have all absolute values."""
    ordered = np.sort(rows, axis=1)
    rows = rows[(np.diff(ordered, axis=1) > 0).all(axis=1)]
    for value in range(len(target)):
        mixed = pool[rows, value] @ weights
        rows = rows[np.abs(np.abs(mixed) - target[value]) <= tolerance]
    return rows

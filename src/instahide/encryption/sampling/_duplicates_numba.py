"""Compiled loops over mixes that add up what each picture has in a mix.

A picture that a mix holds more than once, or that two of its images are counted as, is counted once
in it, with the sum of its coefficients: the encoding shows it with that weight, and the square of a
sum is more than the sum of the squares.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from instahide.utils.numba_jit import Array, njit


@njit(nogil=True)
def add_to_totals(
    images: Array, first: Array, coefficients: Array, counts: Array, squares: Array
) -> None:
    """Add the mixes ``images`` (n, p), with ``coefficients`` (n, p), to both totals (N,).

    ``first`` (N,): the images that these are counted as; None where all are different pictures.
    """
    width = images.shape[1]
    pictures = images
    if first is not None:
        # All at once, so that a processor reads several at a time.
        pictures = np.empty((len(images), width), np.int64)
        for mix in range(len(images)):
            for slot in range(width):
                pictures[mix, slot] = first[images[mix, slot]]
    for mix in range(len(images)):
        for slot in range(width):
            picture = pictures[mix, slot]
            total = np.float64(coefficients[mix, slot])
            again: Array = False
            for other in range(width):
                if pictures[mix, other] == picture and other != slot:
                    again |= other < slot
                    total += coefficients[mix, other]
            if not again:
                counts[picture] += 1
                squares[picture] += total * total


def has_repeats(pictures: NDArray[np.int64]) -> bool:
    """Whether any mix of ``pictures`` (n, p) holds one twice; -1 is none."""
    # Not compiled: a program that only counts need not wait for the compiler.
    columns = np.ascontiguousarray(pictures.T)
    return any(bool(((one == other) & (one >= 0)).any()) for one, other in combinations(columns, 2))


@njit(nogil=True)
def merge_repeats(pictures: Array, coefficients: Array) -> None:
    """In place: leave each picture once in its mix, with the sum of its ``coefficients`` (n, p).

    Its other places in ``pictures`` (n, p) become -1, with a coefficient of 0.
    """
    for mix in range(len(pictures)):
        for slot in range(pictures.shape[1]):
            for other in range(slot + 1, pictures.shape[1]):
                if pictures[mix, slot] >= 0 and pictures[mix, other] == pictures[mix, slot]:
                    coefficients[mix, slot] += coefficients[mix, other]
                    coefficients[mix, other] = 0
                    pictures[mix, other] = -1


@njit(nogil=True)
def equal_images(private: Array, places: Array, public: Array, public_places: Array) -> Array:
    """The first mix of which two images are equal and not of a single value; -1 if there is none.

    A comparison ends at the first values that differ, which are the first ones nearly always.

    Args:
        private: (m, values) images.
        places: (n, p) those of each mix.
        public: (l, values) images of the same type.
        public_places: (n, q) those of each mix.
    """
    own, others = places.shape[1], public_places.shape[1]
    for mix in range(len(places)):
        for slot in range(own + others):
            one = (
                private[places[mix, slot]]
                if slot < own
                else (public[public_places[mix, slot - own]])
            )
            for before in range(slot):
                other = (
                    private[places[mix, before]]
                    if before < own
                    else (public[public_places[mix, before - own]])
                )
                if _equal(one, other):
                    return mix
    return -1


@njit(nogil=True)
def _equal(one: Array, other: Array) -> Array:
    """Whether two images (values,) are equal and not of a single value."""
    flat: Array = True
    for at in range(len(one)):
        if one[at] != other[at]:
            return False
        flat &= one[at] == one[0]
    return not flat

"""Compiled loops that count the pictures of mixes.

A picture that occurs more than once in a mix is counted once, with the sum of its coefficients:
that is its weight in the encoding, and the square of a sum exceeds the sum of the squares.
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

    ``first`` (N,): the image under which each is counted; None if all pictures are distinct.
    """
    width = images.shape[1]
    pictures = images
    if first is not None:
        # In one loop, so that the processor overlaps several reads.
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
    """Whether any mix of ``pictures`` (n, p) contains one twice; -1 is an empty place."""
    # Not compiled, so that a program that only counts does not wait for the compiler.
    columns = np.ascontiguousarray(pictures.T)
    return any(bool(((one == other) & (one >= 0)).any()) for one, other in combinations(columns, 2))


@njit(nogil=True)
def merge_repeats(pictures: Array, coefficients: Array) -> None:
    """Merge repeated pictures of a mix in place, with the sum of their ``coefficients`` (n, p).

    Repetitions in ``pictures`` (n, p) become -1, with a coefficient of 0.
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
    """The first mix with two images that are equal and not of a single value; -1 if there is none.

    A comparison ends at the first difference, which is nearly always the first value.

    Args:
        private: (m, values) images.
        places: (n, p) positions of the images of each mix.
        public: (l, values) images of the same type.
        public_places: (n, q) positions of the images of each mix.
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

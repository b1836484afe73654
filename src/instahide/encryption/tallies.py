"""Compiled loops over mixes that add up what each picture has in a mix.

A picture that a mix holds more than once, or that two of its images are counted as, is counted once
in it, with the sum of its coefficients: the encoding shows it with that weight, and the square of a
sum is more than the sum of the squares.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instahide.encryption.compiled import njit


@njit(nogil=True)
def tally(pictures: Any, coefficients: Any, counts: Any, squares: Any) -> None:
    """Add the mixes ``pictures`` (n, p), with ``coefficients`` (n, p), to both totals (N,)."""
    for mix in range(len(pictures)):
        for slot in range(pictures.shape[1]):
            picture = pictures[mix, slot]
            total = np.float64(coefficients[mix, slot])
            again: Any = False
            for other in range(pictures.shape[1]):
                if pictures[mix, other] == picture and other != slot:
                    again |= other < slot
                    total += coefficients[mix, other]
            if not again:
                counts[picture] += 1
                squares[picture] += total * total


def repeats(pictures: NDArray[np.int64]) -> bool:
    """Whether any mix of ``pictures`` (n, p) holds one twice; -1 is none."""
    # Not compiled: a program that only counts need not wait for the compiler.
    columns = np.ascontiguousarray(pictures.T)
    return any(bool(((one == other) & (one >= 0)).any()) for one, other in combinations(columns, 2))


@njit(nogil=True)
def merge(pictures: Any, coefficients: Any) -> None:
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

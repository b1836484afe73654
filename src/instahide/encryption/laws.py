"""SECRET: the loops of `draws`, compiled: what becomes of uniform 64-bit words.

Keys of one block are drawn while others are mixed. NumPy would take and give back the interpreter's
lock at each of its many small steps, and threads wait for it longer than the steps take. Compiled
loops do without it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def uniform(word: Any) -> Any:
    """A multiple of 2^-53 in [0, 1)."""
    # From a signed integer, for which processors have an instruction.
    return np.float64(np.int64(word >> np.uint64(11))) * 2.0**-53


@njit(nogil=True, cache=True)
def uniforms(words: Any) -> Any:
    """`uniform` of each of ``words`` (n,)."""
    drawn = np.empty(len(words))
    for at in range(len(words)):
        drawn[at] = uniform(words[at])
    return drawn


@njit(nogil=True, cache=True)
def polar(words: Any, turn: float) -> Any:
    """Numbers (n,) in (0, 1], and halves of angles (n,) below ``turn``, of ``words`` (2 n,)."""
    count = len(words) // 2
    chances, halves = np.empty(count), np.empty(count)
    for at in range(count):
        chances[at] = 1 - uniform(words[at])
        halves[at] = uniform(words[count + at]) * (turn / 2)
    return chances, halves


@njit(nogil=True, cache=True)
def normals(logarithms: Any, tangents: Any) -> Any:
    """Normals (2 n,) of the logarithms (n,) of what `polar` gives, and the tangents (n,).

    Box and Muller (1958). Cosine and sine are made of the tangent of half the angle, as NumPy has
    no fast ones of their own.
    """
    count = len(logarithms)
    drawn = np.empty(2 * count)
    for at in range(count):
        square = tangents[at] * tangents[at]
        scale = math.sqrt(-2 * logarithms[at]) / (1 + square)
        drawn[at] = (1 - square) * scale
        drawn[count + at] = 2 * tangents[at] * scale
    return drawn


@njit(nogil=True, cache=True, error_model="numpy")
def shares(raw: Any, k: int) -> Any:
    """(k, n) float32: the share of each in the sum of its column; ``raw`` (k n,) are rows.

    Of a sum of 0 it is not a number, which meets no bounds: such a mix is drawn again.
    """
    count = len(raw) // k
    found = np.empty((k, count), np.float32)
    for at in range(count):
        total = 0.0
        for slot in range(k):
            total += raw[slot * count + at]
        scale = 1 / total
        for slot in range(k):
            found[slot, at] = np.float32(raw[slot * count + at] * scale)
    return found


@njit(nogil=True, cache=True)
def beyond(words: Any, last: Any) -> Any:
    """The places of those ``words`` (b n,) that are above ``last`` (b,), of n words each."""
    places = np.empty(len(words), np.int64)
    count = found = 0
    if len(last):
        count = len(words) // len(last)
    for row in range(len(last)):
        for at in range(row * count, (row + 1) * count):
            places[found] = at
            found += words[at] > last[row]
    return places[:found]


@njit(nogil=True, cache=True)
def partners(first: Any, ranks: Any, private_k: int) -> Any:
    """(n, k) images: ``first`` (n,), and those that ``ranks`` (k - 1, n) tell.

    A rank counts what is left: of the private images, from the second column on, of the public
    ones from the first on.
    """
    k = len(ranks) + 1
    chosen = np.empty((len(first), k), np.int64)
    taken = np.empty(k, np.int64)
    for mix in range(len(first)):
        chosen[mix, 0] = taken[0] = first[mix]
        for column in range(1, k):
            start = private_k if column >= private_k else 0
            image = ranks[column - 1, mix]
            # Those taken are in ascending order: step over each in turn.
            for at in range(start, column):
                image += image >= taken[at]
            chosen[mix, column] = image
            # Put it in its place among them, without a branch that nobody could foretell.
            for at in range(start, column):
                taken[at], image = min(taken[at], image), max(taken[at], image)
            taken[column] = image
    return chosen


@njit(nogil=True, cache=True)
def moves(numbers: Any, padding: int) -> Any:
    """(n, 3) int8: down and right, -padding to padding, and mirrored or not, of ``numbers`` (n,).

    A number below the product of the choices is as good as one below each.
    """
    side = np.uint32(2 * padding + 1)
    found = np.empty((len(numbers), 3), np.int8)
    for at in range(len(numbers)):
        number = np.uint32(numbers[at])
        found[at, 0] = np.int64(number % side) - padding
        found[at, 1] = np.int64(number // side % side) - padding
        found[at, 2] = number // (side * side)
    return found

"""Exhaustive search for the seed of a general-purpose generator, from published coefficients.

NumPy's `RandomState(seed)` and PyTorch's `manual_seed(seed)` on the CPU initialize a Mersenne
Twister from 32 bits. The ratio of the first two coefficients of a mix is the ratio of two of its
first normal values. A few words of the state are enough to compute it, and it rejects nearly all
seeds. The caller tests the remaining ones on all mixes.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from instahide.attacks.weak_rng.mt19937 import MIDDLE
from instahide.utils.numba_jit import njit

Generator = Literal["numpy", "torch"]

#: Number of seeds tried in parallel, in the lanes of vector instructions.
LANES = 16
#: Maximum number of pairs drawn by the polar method. It rejects 21% of them, ten in a row with a
#: probability of about 10^-7.
_ATTEMPTS = 10
#: Relative tolerance of a ratio of float32 coefficients.
TOLERANCE = 1e-5


def candidates(
    ratio: float, generator: Generator, seeds: range, most: int = 100_000
) -> NDArray[np.int64]:
    """Seeds for which the first two coefficients of the first mix have this ratio, in any order.

    Args:
        ratio: ratio of the smaller to the larger coefficient.
        generator: library that drew the coefficients, as an array (n, k) of normals in one call.
        seeds: consecutive seeds to try, within 0 .. 2^32 - 1.
        most: maximum number of seeds to return.
    """
    found = np.zeros(most, np.int64)
    search = _numpy_seeds if generator == "numpy" else _torch_seeds
    count = search(ratio, TOLERANCE, seeds.start, seeds.stop, found)
    return found[:count]


def normals(seed: int, generator: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """The first standard normal values that a library draws from ``seed``.

    PyTorch draws them in blocks of 16; ``shape`` must have at least 16 values.
    """
    if generator == "numpy":
        return np.random.RandomState(seed).standard_normal(shape)
    own = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=own).numpy().astype(np.float64)


@njit(nogil=True)
def _outputs(seed: int, state: NDArray[np.uint32], out: NDArray[np.uint32]) -> None:
    """The first outputs (count, LANES), at most 227, of the generators of consecutive seeds.

    Seeds are processed in parallel, because with a single seed each step would wait for the
    multiplication of the step before.
    """
    count, lanes = out.shape
    for lane in range(lanes):
        state[0, lane] = np.uint32(seed + lane)
    for word in range(1, MIDDLE + count):
        for lane in range(lanes):
            before = state[word - 1, lane]
            mixed = before ^ (before >> np.uint32(30))
            state[word, lane] = np.uint32(1812433253) * mixed + np.uint32(word)
    for word in range(count):
        for lane in range(lanes):
            y = state[word, lane] & np.uint32(0x80000000)
            y |= state[word + 1, lane] & np.uint32(0x7FFFFFFF)
            odd = (y & np.uint32(1)) * np.uint32(0x9908B0DF)
            y = state[word + MIDDLE, lane] ^ (y >> np.uint32(1)) ^ odd
            y ^= y >> np.uint32(11)
            y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
            y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
            out[word, lane] = y ^ (y >> np.uint32(18))


@njit(nogil=True)
def _numpy_seeds(
    ratio: float, tolerance: float, start: int, stop: int, found: NDArray[np.int64]
) -> int:
    """Search with RandomState's polar method (Marsaglia).

    The ratio of the two normal values of a pair is that of its two uniform values.
    """
    state = np.empty((624, LANES), np.uint32)
    out = np.empty((4 * _ATTEMPTS, LANES), np.uint32)
    count = 0
    for base in range(start, stop, LANES):
        _outputs(base, state, out)
        for lane in range(min(LANES, stop - base)):
            first = second = 0.0
            for attempt in range(0, 4 * _ATTEMPTS, 4):
                first = _double(out[attempt, lane], out[attempt + 1, lane])
                second = _double(out[attempt + 2, lane], out[attempt + 3, lane])
                if 0 < first * first + second * second < 1:
                    break
            count = _note(abs(first), abs(second), ratio, tolerance, base + lane, found, count)
    return count


@njit(nogil=True)
def _torch_seeds(
    ratio: float, tolerance: float, start: int, stop: int, found: NDArray[np.int64]
) -> int:
    """Search with PyTorch's Box-Muller method.

    Value i of a block of 16 is computed from outputs i and i + 8.
    """
    state, out = np.empty((624, LANES), np.uint32), np.empty((10, LANES), np.uint32)
    count = 0
    for base in range(start, stop, LANES):
        _outputs(base, state, out)
        for lane in range(min(LANES, stop - base)):
            first = abs(_cosine(out[0, lane], out[8, lane]))
            second = abs(_cosine(out[1, lane], out[9, lane]))
            count = _note(first, second, ratio, tolerance, base + lane, found, count)
    return count


@njit(nogil=True)
def _note(
    first: float,
    second: float,
    ratio: float,
    tolerance: float,
    seed: int,
    found: NDArray[np.int64],
    count: int,
) -> int:
    """Append ``seed`` to ``found`` if the two values have the ratio; return the new count."""
    low, high = min(first, second), max(first, second)
    if abs(low - ratio * high) <= tolerance * high and count < len(found):
        found[count] = seed
        return count + 1
    return count


@njit(nogil=True)
def _double(high: np.uint32, low: np.uint32) -> float:
    """A uniform value from -1 to 1 with 53 bits from two outputs."""
    whole = (high >> np.uint32(5)) * 67108864.0 + (low >> np.uint32(6))
    return float(2.0 * whole / 9007199254740992.0 - 1.0)


@njit(nogil=True)
def _cosine(radius: np.uint32, angle: np.uint32) -> float:
    """The first value of a Box-Muller pair from two 24-bit uniform values."""
    u = 1.0 - (radius & np.uint32(0xFFFFFF)) / 16777216.0
    v = (angle & np.uint32(0xFFFFFF)) / 16777216.0
    return float(math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * v))

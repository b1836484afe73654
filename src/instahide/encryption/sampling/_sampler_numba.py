"""SECRET: the compiled loops of `sampler`, which turn uniform 64-bit words into draws.

Keys of one block are drawn while other blocks are mixed. NumPy would acquire the GIL for each of
many small steps, and waiting for it takes longer than the steps. Compiled loops release it.
"""

from __future__ import annotations

import math

import numpy as np

from instahide.encryption.kernels._intrinsics import high_product
from instahide.utils.numba_jit import Array, njit


@njit(nogil=True)
def uniform(word: Array) -> Array:
    """A multiple of 2^-53 in [0, 1)."""
    # From a signed integer, which processors convert in one instruction.
    return np.float64(np.int64(word >> np.uint64(11))) * 2.0**-53


@njit(nogil=True)
def uniforms(words: Array) -> Array:
    """`uniform` of each of ``words`` (n,)."""
    drawn = np.empty(len(words))
    for at in range(len(words)):
        drawn[at] = uniform(words[at])
    return drawn


@njit(nogil=True)
def positive_uniforms(words: Array) -> Array:
    """Numbers (n,) in (0, 1] from ``words`` (n,); their logarithms are finite."""
    drawn = np.empty(len(words))
    for at in range(len(words)):
        drawn[at] = 1 - uniform(words[at])
    return drawn


@njit(nogil=True)
def above(words: Array, bound: np.uint64) -> Array:
    """Places of those of ``words`` (n,) that are larger than ``bound``."""
    count = 0
    for at in range(len(words)):
        count += words[at] > bound
    found = np.empty(count, np.int64)
    count = 0
    for at in range(len(words) if len(found) else 0):
        if words[at] > bound:
            found[count] = at
            count += 1
    return found


@njit(nogil=True)
def normals(logarithms: Array, words: Array) -> Array:
    """Normals (2 n,) from the logarithms (n,) of uniform numbers and ``words`` (n,) for angles.

    Box and Muller (1958).
    """
    turns = uniforms(words)
    # Two rows instead of two parts of one row: only then is the loop vectorized.
    drawn = np.empty((2, len(words)))
    first, second = drawn
    for at in range(len(words)):
        cosine, sine = _on_circle(math.pi * (turns[at] - 0.5))
        radius = math.sqrt(-2 * logarithms[at])
        first[at] = radius * cosine
        second[at] = radius * sine
    return drawn.reshape(-1)


#: Ratios of successive terms in the series of cosine and sine; the last one first.
_RATIOS = tuple((1 / (n * (n - 1)), 1 / (n * (n + 1))) for n in range(24, 0, -2))


@njit(nogil=True)
def _on_circle(half: float) -> Array:
    """Cosine and sine of twice ``half``, which is from -pi / 2 to pi / 2.

    Computed from their series without branches or calls; the truncation error is below 2^-68.
    """
    square = half * half
    cosine = sine = 1.0
    for even, odd in _RATIOS:
        cosine = 1 - square * even * cosine
        sine = 1 - square * odd * sine
    sine *= half
    return 1 - 2 * sine * sine, 2 * sine * cosine


@njit(nogil=True, error_model="numpy")
def normalize_within_bounds(
    raw: Array, k: int, private_k: int, c1: float, c2: float, own: float
) -> Array:
    """(m, k) float32: columns of ``raw`` divided by their sums, if they meet the bounds.

    ``raw`` (k n,) has k rows; `Scheme.meets_bounds` defines the bounds. A sum of 0 gives NaN, which
    meets no bound.
    """
    count = len(raw) // k
    found = np.empty((count, k), np.float32)
    kept = 0
    for at in range(count):
        total = 0.0
        for slot in range(k):
            total += raw[slot * count + at]
        scale = 1 / total
        private = 0.0
        meets: Array = True
        for slot in range(k):
            share = np.float32(raw[slot * count + at] * scale)
            # In float64: c1 might be rounded up to float32.
            exact = np.float64(share)
            meets &= exact <= c1
            if slot < private_k:
                private += exact
            found[kept, slot] = share
        meets &= (private >= c2) & (np.float64(found[kept, 0]) >= own)
        # The next column overwrites a rejected one.
        kept += meets
    return found[:kept]


@njit(nogil=True)
def below(words: Array, bounds: Array) -> tuple[Array, Array]:
    """(b, n) integers below each of the ``bounds`` (b,), and the positions to draw again.

    The product of a word and a bound has 128 bits: the upper 64 are an integer below the bound, and
    the lower 64 are too small for as many words as would make some integers likelier than others
    (Lemire, "Fast random integer generation in an interval", 2019). Unlike a remainder, this takes
    no division for each word.

    Args:
        words: (b n,) uniform words, n for each bound.
        bounds: (b,) uint64, at least 1.
    """
    count = len(words) // max(1, len(bounds))
    drawn, again = np.empty((len(bounds), count), np.int64), np.empty(len(words), np.int64)
    failed = 0
    for row in range(len(bounds)):
        least = _first_fair(bounds[row])
        for at in range(count):
            word = words[row * count + at]
            drawn[row, at] = high_product(word, bounds[row])  # type: ignore[call-arg]
            again[failed] = row * count + at
            failed += word * bounds[row] < least
    return drawn, again[:failed]


@njit(nogil=True)
def _first_fair(bound: Array) -> Array:
    """2^64 modulo ``bound``: the least lower half of a product that is not drawn again."""
    return (~bound + np.uint64(1)) % bound


@njit(nogil=True)
def partners(first: Array, ranks: Array, private_k: int) -> Array:
    """(n, k) images: ``first`` (n,), and partners by their ``ranks`` (k - 1, n).

    A rank is an index among the images that are not in the mix yet: of private images for the
    private columns, of public images for the others.
    """
    k = len(ranks) + 1
    chosen = np.empty((len(first), k), np.int64)
    taken = np.empty(k, np.int64)
    for mix in range(len(first)):
        chosen[mix, 0] = taken[0] = first[mix]
        for column in range(1, k):
            start = private_k if column >= private_k else 0
            image = ranks[column - 1, mix]
            # Skip the images taken so far, which are in ascending order.
            for at in range(start, column):
                image += image >= taken[at]
            chosen[mix, column] = image
            # Insert it in order, without an unpredictable branch.
            for at in range(start, column):
                taken[at], image = min(taken[at], image), max(taken[at], image)
            taken[column] = image
    return chosen


@njit(nogil=True)
def distinct_partners(
    first: Array, words: Array, spans: Array, places: Array, public_places: Array, shared: Array,
    private_k: int,
) -> Array:  # fmt: skip
    """(n, k) images, of distinct pictures in each mix; and the words to draw again.

    Like `partners`, for images of which some show the same picture. The images of a picture have
    adjacent places, called its span, which is skipped as a whole. So the number of images that are
    left, which is the bound of a word, differs between mixes. Words are drawn again as in `below`.

    Args:
        first: (n,) the first images.
        words: (k - 1, n) uniform 64-bit words.
        spans: (N, 2) for each private image, begin and end of its picture's span.
        places: (N, 3) the private image at each place, and its span.
        public_places: (M, 3) likewise.
        shared: (N, 2) for each private place, the span of its picture among the public places; or
            (0, 2) if there are none.
        private_k: private images in a mix.
    """
    k, count = len(words) + 1, len(first)
    chosen = np.empty((count, k), np.int64)
    chosen[:, 0] = first
    # A place of each private image; the spans taken, in ascending order; the number of images left.
    private = np.empty((count, private_k), np.int32)
    starts, ends = np.empty((count, k), np.int32), np.empty((count, k), np.int32)
    left = np.full(count, len(places), np.int32)
    again, valid, failed = np.empty(count, np.int64), np.ones(count, np.bool_), 0
    for mix in range(count):
        start, end = spans[first[mix], 0], spans[first[mix], 1]
        private[mix, 0] = start
        _take(starts, ends, left, mix, 0, start, end)
    taken = 1
    # Column by column, so that the processor overlaps reads for several mixes.
    for column in range(1, k):
        table = places if column < private_k else public_places
        if column == private_k:
            left[:] = len(public_places)
            taken = _take_shared(starts, ends, left, private, shared)
        for mix in range(count):
            word, bound = words[column - 1, mix], np.uint64(left[mix])
            # The remainder takes a division, and is below the bound.
            low = word * bound
            if low < bound and low < _first_fair(bound) and valid[mix]:
                again[failed] = (column - 1) * count + mix
                failed += 1
                valid[mix] = False
            place = np.int64(high_product(word, bound))  # type: ignore[call-arg]
            for at in range(taken):
                place += (place >= starts[mix, at]) * (ends[mix, at] - starts[mix, at])
            if column < private_k:
                private[mix, column] = place
            chosen[mix, column] = table[place, 0]
            _take(starts, ends, left, mix, taken, table[place, 1], table[place, 2])
        taken += 1
    return chosen, again[:failed]


@njit(nogil=True)
def _take_shared(starts: Array, ends: Array, left: Array, private: Array, shared: Array) -> int:
    """Take the spans of the private images among the public ones; returns their number per mix."""
    taken = 0
    for slot in range(private.shape[1] if len(shared) else 0):
        for mix in range(len(private)):
            at = private[mix, slot]
            _take(starts, ends, left, mix, taken, shared[at, 0], shared[at, 1])
        taken += 1
    return taken


@njit(nogil=True)
def _take(
    starts: Array, ends: Array, left: Array, mix: int, taken: int, first: Array, last: Array
) -> None:
    """Insert a span among those ``taken``, and subtract it from the number of images left."""
    start, end = first, last
    left[mix] -= end - start
    # Spans do not overlap, so starts and ends have the same order. Without a branch, as above.
    for at in range(taken):
        starts[mix, at], start = min(starts[mix, at], start), max(starts[mix, at], start)
        ends[mix, at], end = min(ends[mix, at], end), max(ends[mix, at], end)
    starts[mix, taken], ends[mix, taken] = start, end


@njit(nogil=True)
def moves(numbers: Array, padding: int) -> Array:
    """(n, 3) int8 from ``numbers`` (n,): shifts of -padding to padding, and whether mirrored.

    Each number is uniform below the product of the three numbers of choices.
    """
    side = np.uint32(2 * padding + 1)
    found = np.empty((len(numbers), 3), np.int8)
    for at in range(len(numbers)):
        number = np.uint32(numbers[at])
        found[at, 0] = np.int64(number % side) - padding
        found[at, 1] = np.int64(number // side % side) - padding
        found[at, 2] = number // (side * side)
    return found


@njit(nogil=True)
def permutation(words: Array) -> Array:
    """(n,) a permutation of 0 .. n - 1 from ``words`` (n,), by Durstenfeld (1964)."""
    order = np.arange(len(words))
    for at in range(len(words) - 1, 0, -1):
        other = np.int64(words[at] % np.uint64(at + 1))
        order[at], order[other] = order[other], order[at]
    return order

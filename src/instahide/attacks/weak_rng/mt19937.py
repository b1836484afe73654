"""Recovers the state of a Mersenne Twister by linear algebra over GF(2).

MT19937 (Matsumoto and Nishimura, 1998) is the generator behind NumPy's `RandomState` and PyTorch on
the processor. Both draw a sign as the lowest bit of one output. Every bit of every output is a sum
of bits of the first state, so that as many known bits as there are unknown ones, and a few more,
are a system of linear equations: solved, all outputs are known for good.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.utils.numba_jit import njit

WORDS, MIDDLE = 624, 397
#: Bits of a state that say anything: of the first word only the highest counts.
STATE_BITS = 19_937
#: Known bits that are enough. 19,937 in a row are independent. Where single ones are missing, some
#: of the others say nothing new: with one in a hundred missing, about 21,500 are needed.
#: What is beyond the unknowns has to fit, and by chance hundreds of bits never do.
ENOUGH = 22_000
_UNKNOWNS = WORDS * 32
#: Words of a row: the unknowns and, in the last one, the known bit.
_PACKED = _UNKNOWNS // 64 + 1
#: Pivots that are found before they are taken off all other rows in one pass ("four Russians").
_GROUP = 8


class GeneratorState:
    """A Mersenne Twister that goes on from 624 words.

    Args:
        words: (624,) uint32, whose first twist gives the first outputs.
    """

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._generator = np.random.RandomState()
        # A position at the end: the next output twists first.
        self._generator.set_state(("MT19937", words, WORDS, 0, 0.0))

    def outputs(self, count: int) -> NDArray[np.uint32]:
        """The next ``count`` outputs."""
        return np.asarray(self._generator.randint(0, 1 << 32, count, np.uint32))


def recover_state(bits: NDArray[np.bool], positions: NDArray[np.int64]) -> GeneratorState | None:
    """The generator whose outputs have ``bits`` (n,) as their lowest bits.

    Args:
        bits: known ones; `ENOUGH` of them are enough.
        positions: (n,) the number of the output that each is of, ascending from 0 on.

    Returns:
        The generator, before its first output; None if no state explains the bits, or several do.
    """
    rows = low_bits(int(positions[-1]) + 1, positions)
    rows[:, -1] = bits
    order = np.full(_UNKNOWNS, -1, np.int64)
    if not _eliminate(rows, order) or (order >= 0).sum() < STATE_BITS:
        return None
    solution = _substitute(rows, order)
    return GeneratorState(np.packbits(solution, bitorder="little").view("<u4"))


def low_bits(count: int, positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(n, 313) packed: which bits of the first state add up to the lowest bits of outputs.

    Args:
        count: of outputs to go through.
        positions: (n,) ascending, below ``count``; the outputs that are wanted.
    """
    rows = np.zeros((len(positions), _PACKED), np.uint64)
    _fill_low_bits(rows, positions, count)
    return rows


@njit()
def _fill_low_bits(rows: NDArray[np.uint64], positions: NDArray[np.int64], count: int) -> None:
    state = np.zeros((WORDS, 32, _PACKED - 1), np.uint64)
    for word in range(WORDS):
        for bit in range(32):
            place = word * 32 + bit
            state[word, bit, place // 64] = np.uint64(1) << np.uint64(place % 64)
    done = 0
    for output in range(count):
        word = output % WORDS
        _twist(state, word)
        if done < len(positions) and positions[done] == output:
            _tempered_low_bit(state[word], rows[done])
            done += 1


@njit()
def _twist(state: NDArray[np.uint64], word: int) -> None:
    """One word of the next state in place of the one before it."""
    following, middle = state[(word + 1) % WORDS], state[(word + MIDDLE) % WORDS]
    fresh = middle.copy()
    # (upper bit of this word, lower bits of the next) >> 1, and its lowest bit times the matrix.
    for bit in range(30):
        fresh[bit] ^= following[bit + 1]
    fresh[30] ^= state[word, 31]
    for bit in range(32):
        if (0x9908B0DF >> bit) & 1:
            fresh[bit] ^= following[0]
    state[word] = fresh


@njit()
def _tempered_low_bit(word: NDArray[np.uint64], row: NDArray[np.uint64]) -> None:
    """Which bits of an untempered word make up the lowest bit of the output, added up.

    y ^= y >> 11; y ^= (y << 7) & 0x9D2C5680; y ^= (y << 15) & 0xEFC60000; y ^= y >> 18
    """
    masks = np.zeros(32, np.uint32)
    for bit in range(32):
        y = np.uint32(1) << np.uint32(bit)
        y ^= y >> np.uint32(11)
        y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
        y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
        y ^= y >> np.uint32(18)
        masks[bit] = y
    for bit in range(32):
        if masks[bit] & np.uint32(1):
            for part in range(word.shape[1]):
                row[part] ^= word[bit, part]


@njit()
def _bit(row: NDArray[np.uint64], column: int) -> bool:
    return bool((row[column >> 6] >> np.uint64(column & 63)) & np.uint64(1))


@njit()
def _eliminate(rows: NDArray[np.uint64], order: NDArray[np.int64]) -> bool:
    """Bring ``rows`` into echelon form; ``order`` (unknowns,) becomes the row of each pivot.

    Columns are taken in groups: their pivots are found among the rows left, and every sum of these
    pivots stands in a table, so that one pass takes the whole group off a row.

    Returns:
        Whether the rows contradict each other nowhere.
    """
    width = rows.shape[1]
    done = 0
    table = np.zeros((1 << _GROUP, width), np.uint64)
    columns = np.zeros(_GROUP, np.int64)
    for start in range(0, _UNKNOWNS, _GROUP):
        found = _pivots(rows, done, start, columns)
        for place in range(found):
            order[columns[place]] = done + place
        _sums(rows[done : done + found], table, start >> 6)
        done += found
        _take_off(rows[done:], table, columns[:found], start >> 6)
    return not rows[done:, width - 1].any()


@njit()
def _pivots(rows: NDArray[np.uint64], done: int, start: int, columns: NDArray[np.int64]) -> int:
    """Find pivots of the next columns below row ``done``, and move them there.

    Each pivot row has zeros in the other pivots' columns.
    """
    count, width = rows.shape
    first, found = start >> 6, 0
    for column in range(start, start + _GROUP):
        for row in range(done + found, count):
            for place in range(found):
                if _bit(rows[row], columns[place]):
                    for part in range(first, width):
                        rows[row, part] ^= rows[done + place, part]
            if _bit(rows[row], column):
                for part in range(first, width):
                    held = rows[done + found, part]
                    rows[done + found, part] = rows[row, part]
                    rows[row, part] = held
                for place in range(found):
                    if _bit(rows[done + place], column):
                        for part in range(first, width):
                            rows[done + place, part] ^= rows[done + found, part]
                columns[found] = column
                found += 1
                break
    return found


@njit()
def _sums(pivots: NDArray[np.uint64], table: NDArray[np.uint64], first: int) -> None:
    """``table[i]``: the sum of the pivots whose bits are set in i."""
    for place in range(len(pivots)):
        for index in range(1 << place):
            for part in range(first, pivots.shape[1]):
                table[index | (1 << place), part] = table[index, part] ^ pivots[place, part]


@njit()
def _take_off(
    rows: NDArray[np.uint64], table: NDArray[np.uint64], columns: NDArray[np.int64], first: int
) -> None:
    """Add to each of ``rows`` the sum of pivots that clears its ``columns``."""
    for row in range(len(rows)):
        index = 0
        for place in range(len(columns)):
            if _bit(rows[row], columns[place]):
                index |= 1 << place
        if index:
            for part in range(first, rows.shape[1]):
                rows[row, part] ^= table[index, part]


@njit()
def _substitute(rows: NDArray[np.uint64], order: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(unknowns,) a solution of the echelon form, 0 where it is free to choose."""
    width = rows.shape[1]
    packed = np.zeros(width - 1, np.uint64)
    solution = np.zeros(_UNKNOWNS, np.uint8)
    for column in range(_UNKNOWNS - 1, -1, -1):
        row = order[column]
        if row < 0:
            continue
        folded = np.uint64(0)
        for part in range(column >> 6, width - 1):
            folded ^= rows[row, part] & packed[part]
        for shift in (32, 16, 8, 4, 2, 1):
            folded ^= folded >> np.uint64(shift)
        value = (folded ^ rows[row, width - 1]) & np.uint64(1)
        if value:
            solution[column] = 1
            packed[column >> 6] |= np.uint64(1) << np.uint64(column & 63)
    return solution

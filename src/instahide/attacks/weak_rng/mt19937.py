"""Recovers the state of a Mersenne Twister by linear algebra over GF(2).

MT19937 (Matsumoto and Nishimura, 1998) is the generator of NumPy's `RandomState` and of PyTorch on
the CPU. Both draw a sign as the lowest bit of one output. Every bit of every output is a sum over
GF(2) of bits of the initial state. So a few more known bits than state bits give a system of linear
equations, whose solution determines all outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.utils.numba_jit import njit

WORDS, MIDDLE = 624, 397
#: Number of informative state bits: only the highest bit of the first word is used.
STATE_BITS = 19_937
#: A sufficient number of known bits. 19,937 consecutive ones are independent. If some are missing,
#: others are redundant: with one in a hundred missing, about 21,500 are needed. The surplus bits
#: verify the solution: hundreds of bits do not fit by chance.
ENOUGH = 22_000
_UNKNOWNS = WORDS * 32
#: Number of 64-bit words per row: the unknowns, and the known bit in the last word.
_PACKED = _UNKNOWNS // 64 + 1
#: Number of pivots eliminated from all other rows in one pass (the method of the four Russians).
_GROUP = 8


class GeneratorState:
    """A Mersenne Twister with a given state.

    Args:
        words: (624,) uint32 state before the twist that gives the first outputs.
    """

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._generator = np.random.RandomState()
        # The position at the end makes the next output twist the state first.
        self._generator.set_state(("MT19937", words, WORDS, 0, 0.0))

    def outputs(self, count: int) -> NDArray[np.uint32]:
        """The next ``count`` outputs."""
        return np.asarray(self._generator.randint(0, 1 << 32, count, np.uint32))


def recover_state(bits: NDArray[np.bool], positions: NDArray[np.int64]) -> GeneratorState | None:
    """Find the generator whose outputs have ``bits`` as their lowest bits.

    Args:
        bits: (n,) known bits; `ENOUGH` are sufficient.
        positions: (n,) ascending index of the output of each bit, counted from 0.

    Returns:
        The generator before its first output; None if no state or several states explain the bits.
    """
    rows = low_bits(int(positions[-1]) + 1, positions)
    rows[:, -1] = bits
    order = np.full(_UNKNOWNS, -1, np.int64)
    if not _eliminate(rows, order) or (order >= 0).sum() < STATE_BITS:
        return None
    solution = _substitute(rows, order)
    return GeneratorState(np.packbits(solution, bitorder="little").view("<u4"))


def low_bits(count: int, positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(n, 313) packed rows: the bits of the initial state whose sum is the lowest bit of an output.

    Args:
        count: number of outputs to generate.
        positions: (n,) ascending indices of the wanted outputs, less than ``count``.
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
    """Replace one word of the state by its successor."""
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
    """Add up the bits of an untempered word whose sum is the lowest bit of the output.

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

    Columns are processed in groups. The pivots of a group are found among the remaining rows, and a
    table holds all sums of these pivots, so that one pass eliminates the whole group from a row.

    Returns:
        Whether the system is consistent.
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
    """Find pivots of the next columns from row ``done`` on, and move them there.

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
    """Set ``table[i]`` to the sum of the pivots whose bits are set in i."""
    for place in range(len(pivots)):
        for index in range(1 << place):
            for part in range(first, pivots.shape[1]):
                table[index | (1 << place), part] = table[index, part] ^ pivots[place, part]


@njit()
def _take_off(
    rows: NDArray[np.uint64], table: NDArray[np.uint64], columns: NDArray[np.int64], first: int
) -> None:
    """Add to each row the sum of pivots that clears its ``columns``."""
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
    """(unknowns,) a solution of the echelon form; free variables are 0."""
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

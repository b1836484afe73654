"""The encoding on CPU cores, in one pass without intermediate arrays.

Each worker takes a share of the mixes. For each channel it reads k planes once and computes the
weighted sum, with the normalization folded into weights and bias, and XORs sign bits with mask
bits. With augmentation, it first copies the moved planes to a scratch buffer in the first-level
cache. k is a constant of the inner loop, so that the compiler keeps the sum in vector registers.

Partners are random rows of the table, which defeats hardware prefetching. So the rows of the next
mix are prefetched while a mix is computed.
"""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numba.cpython.unsafe.tuple import tuple_setitem
from numpy.typing import NDArray

from instahide.encryption.kernels._intrinsics import (
    LANES,
    LINE,
    copy_mirrored,
    fence,
    prefetch,
    stream,
)
from instahide.encryption.keys import OneTimeKeys
from instahide.utils.numba_jit import Array, njit

#: Fewer values than this are encoded without a second thread.
ALONE = 1 << 17
_NO_MOVES = np.zeros((0, 0, 3), np.int8)
_NO_MASKS = np.zeros((0, 0, 0), np.uint32)
_limits = threading.local()


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def limit_threads(count: int) -> None:
    """Let `encode` in the calling thread use ``count`` threads: others encode at the same time."""
    _limits.threads = count


def encode(
    private: NDArray[np.generic],
    public: NDArray[np.generic],
    keys: OneTimeKeys,
    private_k: int,
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: torch.Tensor,
    black: float = 0,
) -> None:
    """Write the encodings to ``out``; otherwise like `reference.encode`.

    Args:
        private: (N, C, H, W) of one of `pixels.DTYPES`, C-contiguous, in memory or memory-mapped.
        public: (P, C, H, W) of the same type.
        keys: for n mixes.
        private_k: private columns of ``keys.partners``.
        scale: (C,)
        bias: (C,)
        out: (n, C, H, W) float32, float16 or bfloat16, contiguous, on the CPU.
        black: the pixel that comes in where an image is moved.
    """
    count, k = keys.partners.shape
    # A tuple's length is part of its type, so that compiled code sees k and private_k as constants.
    # Numba could not cache a closure over them on disk, and would compile it in every process.
    begins, weights, private_slots = (0,) * k, (np.float32(0),) * k, (0,) * private_k
    masks = _NO_MASKS if keys.masks is None else keys.masks
    moves = _NO_MOVES if keys.moves is None else keys.moves
    values = private.reshape(-1), public.reshape(-1)
    fill = private.dtype.type(black)

    threads = getattr(_limits, "threads", processors()) if out.numel() > ALONE else 1
    # One share per thread, because every hand-over waits for the GIL.
    share = max(1, -(-count // threads))

    def work(start: int) -> None:
        part = out[start : start + share]
        exact = part
        if part.dtype != torch.float32:
            exact = torch.empty(part.shape, dtype=torch.float32)
        _encode_mixes(
            values, keys.partners, keys.coefficients, masks, moves, (scale, bias, fill), start,
            exact.numpy(), (begins, weights, private_slots), _line(part, exact),
        )  # fmt: skip
        if exact is not part:
            part.copy_(exact)

    starts = range(0, count, share)
    if threads == 1:
        work(0)
    else:
        list(_workers(os.getpid()).map(work, starts))


def _line(part: torch.Tensor, exact: torch.Tensor) -> NDArray[np.uint32]:
    """Room for 32 values that are written past the caches together, or none.

    A block of encodings is larger than the caches: written into them, it would be read from memory
    first. It is written past them where every plane begins with a cache line and is not read again
    here.
    """
    whole = math.prod(exact.shape[2:]) % 32 == 0 and exact.data_ptr() % LINE == 0
    return np.empty(32 if whole and exact is part else 0, np.uint32)


@cache
def _workers(process: int) -> ThreadPoolExecutor:
    """The thread pool of a process; a forked child needs its own."""
    return ThreadPoolExecutor(processors(), thread_name_prefix="instahide-encode")


@njit(nogil=True)
def _encode_mixes(
    tables: Array, partners: Array, coefficients: Array, masks: Array, moves: Array,
    normalization: Array, start: int, out: Array, registers: Array, line: Array,
) -> None:  # fmt: skip
    """Fill ``out`` with the mixes from ``start`` on.

    ``tables`` are the private and the public images, flat. ``registers`` are tuples of lengths
    k, k and private_k, whose values stay in registers: the start and the weight of every plane of
    a mix. The tuple ``coming`` has the starts of the next mix's planes. ``line`` is as of `_line`.
    """
    (private, public), (scale, bias, black) = tables, normalization
    begins, weights, private_slots = registers
    channels, height, width = out.shape[1:]
    size, room, coming = height * width, (height + 2) * width, begins
    moved = np.empty(len(begins) * room, private.dtype)
    unmasked = np.zeros((size + 31) // 32, np.uint32)
    for row in range(out.shape[0]):
        mix, following = start + row, min(start + row + 1, len(partners) - 1)
        for channel in range(channels):
            for slot in range(len(begins)):
                begin = (partners[mix, slot] * channels + channel) * size
                soon = (partners[following, slot] * channels + channel) * size
                if moves.size:
                    table = private if slot < len(private_slots) else public
                    to = slot * room + width
                    _copy_shifted(table, begin, moves[mix, slot], moved, to, (height, width), black)
                    _prefetch_plane(table, soon, size)
                    # The planes to mix are in the cache already: nothing to prefetch.
                    begin = soon = to
                # Numba supplies the first argument.
                begins = tuple_setitem(begins, slot, begin)  # type: ignore[call-arg]
                coming = tuple_setitem(coming, slot, soon)
                weight = coefficients[mix, slot] * scale[channel]
                weights = tuple_setitem(weights, slot, weight)
            words = masks[mix, channel] if masks.size else unmasked
            bits = out[row, channel].reshape(-1).view(np.uint32)
            if moves.size:
                _mix_and_mask(
                    moved, moved, begins, weights, bias[channel], words, bits, begins, coming, line
                )
            else:
                _mix_and_mask(
                    private, public, begins, weights, bias[channel], words, bits, private_slots,
                    coming, line,
                )  # fmt: skip
    fence()  # type: ignore[call-arg]


@njit(nogil=True)
def _prefetch_plane(table: Array, begin: Array, size: int) -> None:
    # A step of one cache line of 8-bit pixels; of floats, every fourth line.
    for at in range(0, size, LINE):
        prefetch(table, np.uintp(begin + at))  # type: ignore[call-arg]


@njit(nogil=True, fastmath={"contract"})
def _value(
    private: Array,
    public: Array,
    begins: Array,
    weights: Array,
    bias: Array,
    at: Array,
    private_slots: Array,
) -> Array:
    """The bits of bias + sum of weights x planes at one place."""
    total = bias
    for slot in range(len(begins)):
        # Unsigned: support of negative indices would prevent vectorization.
        place = np.uintp(begins[slot] + at)
        value = private[place] if slot < len(private_slots) else public[place]
        total += weights[slot] * np.float32(value)
    return np.float32(total).view(np.uint32)


@njit(nogil=True, fastmath={"contract"})
def _mix_and_mask(
    private: Array, public: Array, begins: Array, weights: Array, bias: Array, words: Array,
    out: Array, private_slots: Array, coming: Array, line: Array,
) -> None:  # fmt: skip
    """Write every value to ``out``, with its sign flipped by the mask bits ``words``.

    Meanwhile, prefetch the planes that begin at ``coming``.
    """
    whole = out.size // 32
    target = line if line.size else out
    for word in range(whole):
        for slot in range(len(coming)):
            table = private if slot < len(private_slots) else public
            prefetch(table, np.uintp(coming[slot] + 32 * word))  # type: ignore[call-arg]
        begin = 0 if line.size else 32 * word
        for bit in range(32):
            sign = (words[word] << np.uint32(31 - bit)) & np.uint32(0x80000000)
            at = 32 * word + bit
            value = _value(private, public, begins, weights, bias, at, private_slots)
            target[np.uintp(begin + bit)] = value ^ sign
        if line.size:
            stream(out, np.uintp(32 * word), line)  # type: ignore[call-arg]
    for at in range(32 * whole, out.size):
        sign = (words[whole] << np.uint32(31 - at % 32)) & np.uint32(0x80000000)
        value = _value(private, public, begins, weights, bias, at, private_slots)
        out[np.uintp(at)] = value ^ sign


@njit(nogil=True)
def _copy_shifted(
    table: Array, begin: Array, move: Array, moved: Array, to: Array, size: Array, black: Array
) -> None:
    """Copy the plane from ``begin``, mirrored and then shifted down and right, padded with black.

    ``moved`` has space for a line before ``to`` and for another after the plane.
    """
    height, width = size
    # A move beyond the border leaves nothing: compiled code would write beyond the plane.
    down = min(height, max(-height, int(move[0])))
    right = min(width, max(-width, int(move[1])))
    top, bottom = max(0, down), min(height, height + down)
    left, end = max(0, right), min(width, width + right)
    # Copying whole lines is faster than parts; values that wrap around are set to black below.
    if move[2]:
        for y in range(top, bottom):
            line, last = to + y * width + right, begin + (y - down + 1) * width - 1
            whole = width // LANES * LANES
            for x in range(0, whole, LANES):
                to_place, from_place = np.uintp(line + x), np.uintp(last - x - LANES + 1)
                # Numba supplies the first argument.
                copy_mirrored(moved, to_place, table, from_place)  # type: ignore[call-arg]
            for x in range(whole, width):
                moved[np.uintp(line + x)] = table[np.uintp(last - x)]
    else:
        first, source = to + top * width + right, begin + (top - down) * width
        # Unsigned indices: support of negative ones would prevent vectorization.
        for at in range((bottom - top) * width):
            moved[np.uintp(first + at)] = table[np.uintp(source + at)]
    moved[to : to + top * width] = black
    moved[to + bottom * width : to + height * width] = black
    # Column by column: it is so few of them that a loop over each line would be all overhead.
    for x in range(left):
        for y in range(top, bottom):
            moved[np.uintp(to + y * width + x)] = black
    for x in range(end, width):
        for y in range(top, bottom):
            moved[np.uintp(to + y * width + x)] = black

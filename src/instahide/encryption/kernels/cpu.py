"""The encoding on CPU cores: rows of pixels in, encoded rows out, nothing in between in memory.

A worker takes a few mixes at a time. For each channel it copies the k rows (moved, where there is
augmentation) to a scratch that stays in the first-level cache, then goes over the values once:
weighted sum, normalisation folded into weights and bias, sign bit XORed with the mask's bit. The
inner loop has a fixed k, so that the compiler keeps the sum in vector registers.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from instahide.encryption.draws import OneTimeKeys

#: Fewer values than this are not worth handing over to another thread.
ALONE = 1 << 17
_NO_MOVES = np.zeros((0, 0, 3), np.int8)
_NO_MASKS = np.zeros((0, 0, 0), np.uint32)


def encode(
    private: NDArray[Any],
    public: NDArray[Any],
    keys: OneTimeKeys,
    private_k: int,
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: torch.Tensor,
) -> None:
    """Write the encodings to ``out``; arguments as in `reference.encode`.

    Args:
        private: (N, C, H, W) uint8 or float32, C-contiguous, in memory or memory-mapped.
        public: (P, C, H, W) of the same type.
        keys: for n mixes.
        private_k: private columns of ``keys.partners``.
        scale: (C,)
        bias: (C,)
        out: (n, C, H, W) float32, float16 or bfloat16, contiguous, on the CPU.
    """
    count, k = keys.partners.shape
    # A tuple's length is part of its type, so that compiled code sees k as a constant. A closure
    # over k would do the same, but Numba cannot find it again on disk and compiles it every time.
    slots = (0,) * k
    masks = _NO_MASKS if keys.masks is None else keys.masks
    moves = _NO_MOVES if keys.moves is None else keys.moves
    _, channels, height, width = out.shape
    private, public = (
        table.reshape(len(table), channels, height * width) for table in (private, public)
    )

    threads = len(os.sched_getaffinity(0)) if out.numel() > ALONE else 1
    # One share a thread: every hand-over waits for the interpreter's lock.
    share = max(1, -(-count // threads))

    def work(start: int) -> None:
        part = out[start : start + share]
        exact = part if part.dtype == torch.float32 else torch.empty(part.shape)
        _encode_mixes(
            private, public, keys.partners, private_k, keys.coefficients,
            masks, moves, scale, bias, start, exact.numpy(), slots,
        )  # fmt: skip
        if exact is not part:
            part.copy_(exact)

    starts = range(0, count, share)
    if threads == 1:
        work(0)
    else:
        list(_workers(os.getpid()).map(work, starts))


@cache
def _workers(process: int) -> ThreadPoolExecutor:
    """One pool of threads a process: a forked child has none of its parent's threads."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="instahide-encode")


@njit(nogil=True, cache=True)
def _encode_mixes(
    private: Any, public: Any, partners: Any, private_k: Any, coefficients: Any,
    masks: Any, moves: Any, scale: Any, bias: Any, start: Any, out: Any, slots: Any,
) -> None:  # fmt: skip
    """Fill ``out`` with the mixes from ``start`` on, of as many images as there are ``slots``."""
    height, width = out.shape[2:]
    rows = np.empty((len(slots), height * width), private.dtype)
    weights = np.empty(len(slots), np.float32)
    unmasked = np.zeros((height * width + 31) // 32, np.uint32)
    for row in range(out.shape[0]):
        mix = start + row
        for channel in range(out.shape[1]):
            for slot in range(len(slots)):
                at = partners[mix, slot]
                plane = private[at, channel] if slot < private_k else public[at, channel]
                if moves.size:
                    _copy_moved(plane, moves[mix, slot], rows[slot], width)
                else:
                    for pixel in range(plane.size):
                        rows[slot, pixel] = plane[pixel]
                weights[slot] = coefficients[mix, slot] * scale[channel]
            words = masks[mix, channel] if masks.size else unmasked
            bits = out[row, channel].reshape(-1).view(np.uint32)
            _mix_and_mask(rows, weights, bias[channel], words, bits, slots)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _value(rows: Any, weights: Any, bias: Any, at: Any, slots: Any) -> Any:
    """Bits of (bias + sum of weights x rows) at one place."""
    total = bias
    for slot in range(len(slots)):
        total += weights[slot] * np.float32(rows[slot, at])
    return np.float32(total).view(np.uint32)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _mix_and_mask(rows: Any, weights: Any, bias: Any, words: Any, out: Any, slots: Any) -> None:
    """Every value to ``out``, its sign turned where ``words`` say so."""
    whole = out.size // 32
    for word in range(whole):
        for bit in range(32):
            sign = (words[word] << np.uint32(31 - bit)) & np.uint32(0x80000000)
            at = 32 * word + bit
            out[at] = _value(rows, weights, bias, at, slots) ^ sign
    for at in range(32 * whole, out.size):
        sign = (words[whole] << np.uint32(31 - at % 32)) & np.uint32(0x80000000)
        out[at] = _value(rows, weights, bias, at, slots) ^ sign


@njit(nogil=True, cache=True)
def _copy_moved(plane: Any, move: Any, moved: Any, width: int) -> None:
    """Copy ``plane`` (H * W,), mirrored and then shifted down and right, black coming in."""
    size = plane.size
    height = size // width
    # A move beyond the border leaves nothing: compiled code would write beyond the plane.
    down = min(height, max(-height, int(move[0])))
    right = min(width, max(-width, int(move[1])))
    top, bottom = max(0, down), min(height, height + down)
    left, end = max(0, right), min(width, width + right)
    # Unsigned indices: Python's counting from the end would keep the loops from vectorising.
    if move[2]:
        for y in range(top, bottom):
            mirror = (y - down) * width + width - 1 + right
            for x in range(left, end):
                moved[np.uintp(y * width + x)] = plane[np.uintp(mirror - x)]
    else:
        # One long run is copied faster than many lines; what wraps round is blackened below.
        shift = down * width + right
        for at in range(max(0, shift), size + min(0, shift)):
            moved[np.uintp(at)] = plane[np.uintp(at - shift)]
    moved[: top * width] = 0
    moved[bottom * width :] = 0
    for y in range(top, bottom):
        for x in range(left):
            moved[np.uintp(y * width + x)] = 0
        for x in range(end, width):
            moved[np.uintp(y * width + x)] = 0

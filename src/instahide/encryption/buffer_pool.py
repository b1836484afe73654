"""A pool of memory buffers for encodings.

A buffer is reused when no tensor refers to it any more. Linux zeroes fresh memory page by page,
which took a tenth of the encoding time.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Bytes of a cache line.
LINE = 64
#: Buffers in the pool: about the number of blocks that a stream holds at a time.
SPARE = 6
#: Bytes of the smallest and the largest buffer that is pooled.
LEAST, MOST = 1 << 20, 1 << 25
_spare: deque[NDArray[np.uint8]] = deque(maxlen=SPARE)


def allocate(shape: tuple[int, ...], dtype: torch.dtype, *, pin_memory: bool) -> Tensor:
    """An uninitialized CPU tensor for encodings of ``shape``, from the pool if possible.

    Args:
        shape: of the encodings.
        dtype: of the encodings.
        pin_memory: whether to use page-locked memory.
    """
    if pin_memory:
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    size = math.prod(shape) * dtype.itemsize
    if not LEAST <= size <= MOST:
        return torch.from_numpy(np.empty(shape, f"u{dtype.itemsize}")).view(dtype)
    memory = _spare_buffer(size + LINE)
    # Kernels write whole cache lines.
    start = -memory.ctypes.data % LINE
    buffer = memory[start : start + size].view(f"u{dtype.itemsize}").reshape(shape)
    # Every tensor on this memory, and every array on such a tensor, holds ``buffer``.
    weakref.finalize(buffer, _spare.append, memory).atexit = False
    return torch.from_numpy(buffer).view(dtype)


def _spare_buffer(size: int) -> NDArray[np.uint8]:
    """An unused buffer of at least ``size`` bytes, by NumPy, which uses huge pages."""
    for _ in range(len(_spare)):
        try:
            memory = _spare.popleft()
        except IndexError:
            break  # Another thread was faster.
        if size <= memory.size <= 2 * size:
            return memory
        _spare.append(memory)
    return np.empty(size, np.uint8)

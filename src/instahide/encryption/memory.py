"""Memory for encodings, used again once nobody holds them.

Linux zeroes fresh memory page by page: a tenth of the time of encoding went into that.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Pieces of memory that are kept: a stream has about as many blocks at a time.
SPARE = 6
#: Bytes; less memory is had for nothing, and more is not kept.
LEAST, MOST = 1 << 20, 1 << 25
_spare: deque[NDArray[np.uint8]] = deque(maxlen=SPARE)


def room(shape: tuple[int, ...], dtype: torch.dtype, *, pin_memory: bool) -> Tensor:
    """Memory on the CPU for encodings of ``shape``, with whatever stands in it."""
    if pin_memory:
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    size = math.prod(shape) * dtype.itemsize
    if not LEAST <= size <= MOST:
        return torch.from_numpy(np.empty(shape, f"u{dtype.itemsize}")).view(dtype)
    memory = _spare_of(size)
    lent = memory[:size].view(f"u{dtype.itemsize}").reshape(shape)
    # Every tensor on this memory, and every array on such a tensor, holds ``lent``.
    weakref.finalize(lent, _spare.append, memory).atexit = False
    return torch.from_numpy(lent).view(dtype)


def _spare_of(size: int) -> NDArray[np.uint8]:
    """At least ``size`` bytes that nobody uses; NumPy's have huge pages, which torch's have not."""
    for _ in range(len(_spare)):
        try:
            memory = _spare.popleft()
        except IndexError:
            break  # Another thread was faster.
        if size <= memory.size <= 2 * size:
            return memory
        _spare.append(memory)
    return np.empty(size, np.uint8)

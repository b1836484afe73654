"""Memory for encodings, used again once nobody holds them.

Linux zeroes fresh memory page by page: a tenth of the time of encoding went into that.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Pieces of memory that are kept: a stream has about as many blocks at a time.
SPARE = 6
#: Bytes; less memory is had for nothing, and more is not kept.
LEAST, MOST = 1 << 20, 1 << 25
_spare: deque[NDArray[np.uint8]] = deque(maxlen=SPARE)


def allocate(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    *,
    pin_memory: bool,
    wait: Callable[[], object] = lambda: None,
) -> Tensor:
    """Memory on the CPU for encodings of ``shape``, with whatever stands in it.

    Args:
        shape: of the encodings.
        dtype: of the encodings.
        pin_memory: whether it is to be page-locked.
        wait: is called first; see `Turns`.
    """
    wait()
    if pin_memory:
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    size = math.prod(shape) * dtype.itemsize
    if not LEAST <= size <= MOST:
        return torch.from_numpy(np.empty(shape, f"u{dtype.itemsize}")).view(dtype)
    memory = _spare_buffer(size)
    lent = memory[:size].view(f"u{dtype.itemsize}").reshape(shape)
    # Every tensor on this memory, and every array on such a tensor, holds ``lent``.
    weakref.finalize(lent, _spare.append, memory).atexit = False
    return torch.from_numpy(lent).view(dtype)


class Turns:
    """When the blocks of a stream get memory, so that no more than ``most`` of them have some.

    One of these is with whoever uses the encodings. It is dropped when the next one is handed out,
    and so its memory is free once the one after that is asked for.
    """

    def __init__(self, most: int) -> None:
        self._free, self._asked = most, 0
        self._waiting: deque[Event] = deque()

    def next(self) -> Callable[[], object]:
        """What the next block is to call before it gets memory."""
        turn = Event()
        if self._free:
            self._free -= 1
            turn.set()
        else:
            self._waiting.append(turn)
        return turn.wait

    def asked(self) -> None:
        """Whoever uses the encodings asks for another block, and so holds no more than one."""
        self._asked += 1
        if self._asked == 1:
            return
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1

    def end(self) -> None:
        """Nobody is to wait any more."""
        for turn in self._waiting:
            turn.set()


def _spare_buffer(size: int) -> NDArray[np.uint8]:
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

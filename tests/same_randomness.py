"""A test draws the same keys and random numbers in every run, so that a failure can be repeated.

``INSTAHIDE_TEST_RANDOMNESS=new`` draws others, as users do: the scheduled workflow runs the tests
so. Processes that a test starts or forks draw their own in any case, as copies of the same keys are
what some of them look for.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np

#: Whether every run draws the same.
SAME = os.environ.get("INSTAHIDE_TEST_RANDOMNESS") != "new"
_NEW_BYTES, _NEW_GENERATOR = secrets.token_bytes, np.random.default_rng
_BYTES = 32


class _Source:
    """Bytes that follow from a name, for the threads of one process."""

    def __init__(self, name: str) -> None:
        self._generator = _NEW_GENERATOR(list(name.encode()))
        self._lock, self._process = Lock(), os.getpid()

    def bytes(self, count: int | None) -> bytes:
        if os.getpid() != self._process:
            return _NEW_BYTES(count)
        with self._lock:
            return self._generator.bytes(_BYTES if count is None else count)


_source = _Source("")


def _token_bytes(nbytes: int | None = None) -> bytes:
    return _source.bytes(nbytes)


def _default_rng(seed: object = None) -> np.random.Generator:
    return _NEW_GENERATOR(list(_token_bytes()) if seed is None else seed)  # type: ignore[arg-type]


def install() -> None:
    """Whatever asks the operating system for randomness in this process asks the test's name."""
    secrets.token_bytes = _token_bytes
    np.random.default_rng = _default_rng


def begin(name: str) -> None:
    """Draw what follows from the name of a test, from here on."""
    import torch

    global _source
    _source = _Source(name)
    seed = int.from_bytes(_token_bytes(4), "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def apart(name: str) -> Iterator[None]:
    """Draw by another name in the block, then go on as if nothing had been drawn."""
    import torch

    global _source
    before = _source, random.getstate(), np.random.get_state(), torch.get_rng_state()
    begin(name)
    try:
        yield
    finally:
        _source = before[0]
        random.setstate(before[1])
        np.random.set_state(before[2])
        torch.set_rng_state(before[3])

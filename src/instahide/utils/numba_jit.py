"""Numba's `njit` with a cache on disk, if a folder for it is writable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numba

#: An array or a number in compiled code, whose type Numba infers.
Array: TypeAlias = Any
P = ParamSpec("P")
T = TypeVar("T")


def njit(**options: Any) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Compile a function at its first call, like `numba.njit`.

    Machine code is cached on disk, next to the source or in the user's cache folder. If neither is
    writable, every process compiles the function again, which takes seconds.
    """

    def compiled(function: Callable[P, T]) -> Callable[P, T]:
        kernel: Callable[P, T]
        try:
            kernel = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # There is no writable folder for the cache.
            kernel = numba.njit(**options)(function)
        return kernel

    return compiled

"""Numba's compiler, with its cache on disk where there is a folder for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numba

#: An array or a number in compiled code: numba finds out its type by itself.
Array: TypeAlias = Any
P = ParamSpec("P")
T = TypeVar("T")


def njit(**options: Any) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Compile a function at its first call, as `numba.njit` does.

    Machine code is kept on disk, beside the source or in the user's cache folder. Where neither can
    be written, every process compiles for itself, which takes seconds.
    """

    def compiled(function: Callable[P, T]) -> Callable[P, T]:
        kernel: Callable[P, T]
        try:
            kernel = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # No folder that could be written was found.
            kernel = numba.njit(**options)(function)
        return kernel

    return compiled

"""Numba's compiler, with its cache on disk where there is a folder for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numba

#: An array or a number in compiled code: numba finds out its type by itself.
Array: TypeAlias = Any


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at its first call, as `numba.njit` does.

    Machine code is kept on disk, beside the source or in the user's cache folder. Where neither can
    be written, every process compiles for itself, which takes seconds.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # No folder that could be written was found.
            return numba.njit(**options)(function)

    return compiled

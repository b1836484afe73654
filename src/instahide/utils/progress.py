"""A switch that hides progress bars, for programs that use the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_HIDDEN: ContextVar[bool] = ContextVar("progress_hidden", default=False)


def progress_hidden() -> bool:
    """Whether the calling code runs inside `hidden_progress`."""
    return _HIDDEN.get()


@contextmanager
def hidden_progress(hidden: bool = True) -> Iterator[None]:
    """Hide the progress bars of readers and downloads inside the block.

    >>> with hidden_progress():
    ...     progress_hidden()
    True
    """
    before = _HIDDEN.set(hidden)
    try:
        yield
    finally:
        _HIDDEN.reset(before)

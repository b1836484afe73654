"""Keeps the messages of libraries that read files out of logs and terminals."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Libraries whose messages may quote what stands in a file.
LIBRARIES = ("PIL", "pydicom", "nibabel", "tifffile")


class _Levels:
    """The levels of the loggers of `LIBRARIES`, which are raised while a block is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._levels: dict[str, int] = {}

    def enter(self) -> None:
        """Raise the levels, unless another thread has."""
        with self._lock:
            if not self._inside:
                # Of children too: one may have a level of its own. Other threads may add some.
                known = filter(_is_of_library, list(logging.root.manager.loggerDict))
                self._levels = {
                    name: logging.getLogger(name).level for name in {*known, *LIBRARIES}
                }
            self._inside += 1
            for name in self._levels:
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def leave(self) -> None:
        """Restore the levels when the last block ends."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for name, level in self._levels.items():
                    logging.getLogger(name).setLevel(level)


_LEVELS = _Levels()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings and log records of `LIBRARIES` inside the block, also on other threads.

    A DICOM file could otherwise bring the name of a patient into a log.
    """
    with quiet_logs(), warnings.catch_warnings():
        for name in LIBRARIES:
            warnings.filterwarnings("ignore", module=name)
        yield


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Suppress log records of `LIBRARIES` inside the block, which may be on several threads.

    A thread needs a block of its own if it may outlast the block of the thread that started it.
    """
    _LEVELS.enter()
    try:
        yield
    finally:
        _LEVELS.leave()


def _is_of_library(name: str) -> bool:
    return name.split(".")[0] in LIBRARIES

"""Locks, so that two processes never write to one folder at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from instahide.errors import InstaHideError

#: Device and inode of the folders that this process has locked with `only_process`.
_held: set[tuple[int, int]] = set()


@contextmanager
def only_process(folder: Path) -> Generator[None]:
    """Let no other process that uses this module write to ``folder`` during the block.

    The lock leaves no file, and ends with the process, however that ends. On file systems that
    cannot lock a folder, such as some network file systems, nothing is locked.

    Raises:
        InstaHideError: another process is in such a block with this folder.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from instahide.utils.folder_lock import only_process
        >>> with TemporaryDirectory() as folder, only_process(Path(folder)):
        ...     print("no other process writes here")
        no other process writes here
    """
    with _opened(folder) as (opened, identity):
        with suppress(OSError):
            lock_or_refuse(opened, folder)
        _held.add(identity)
        try:
            yield
        finally:
            _held.discard(identity)


@contextmanager
def one_process_at_a_time(folder: Path) -> Generator[None]:
    """As `only_process`, but wait for other processes; for a short block, also within the other."""
    with _opened(folder) as (opened, identity):
        # A process that waited for its own lock would wait forever.
        if identity not in _held:
            with suppress(OSError):
                fcntl.flock(opened, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(folder: Path) -> Generator[tuple[int, tuple[int, int]]]:
    """A descriptor of ``folder``, which holds its lock, and the identity of the folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        status = os.fstat(opened)
        yield opened, (status.st_dev, status.st_ino)
    finally:
        os.close(opened)


def lock_or_refuse(opened: int, location: Path | str) -> None:
    """Lock the open file ``opened`` of the folder ``location`` until it is closed.

    Raises:
        InstaHideError: it is locked.
        OSError: the file system cannot lock it.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InstaHideError(
            f"{location} is being written by another process.",
            "Wait until it has ended, or choose another folder.",
        ) from None

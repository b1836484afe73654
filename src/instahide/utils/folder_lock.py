"""Locks, so that two processes never write to one folder at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from instahide.errors import InstaHideError


@contextmanager
def only_process(folder: Path) -> Generator[None]:
    """Let no other process that uses this function write to ``folder`` during the block.

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
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            lock_or_refuse(opened, folder)
        yield
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

"""Checks that the files of an open ledger still exist and are the same.

SQLite keeps writing to a database whose file was removed or replaced, and those counts would be
lost. It finds its log (``-wal``) and its index (``-shm``) by the name of the database: two programs
that open one file under different names use two logs and lose each other's counts. So a ledger is
opened under the path that symbolic links resolve to, and work ends if the file could have a second
name or other contents.

Two cases are not detected: a file that is overwritten within the same clock tick of the file system
as a write by SQLite, and a copy of the whole machine.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from instahide.encodings.ledger.errors import damaged, explained, lost
from instahide.errors import LedgerError

#: The database, SQLite's log of it, and the index of that log.
SUFFIXES = ("", "-wal", "-shm")
_MOUNTS = Path("/proc/self/mountinfo")


def resolve_path(path: Path) -> Path:
    """The absolute path without symbolic links; the ledger may exist or not.

    Raises:
        LedgerError: ``path`` begins with a ~ that no shell has expanded, is not a file, has a
            second name, or only the log of a removed ledger exists.
    """
    if str(path).startswith("~"):
        raise LedgerError(
            f"The ledger {path} would be in a folder named {path.parts[0]} of the working "
            "directory, so that earlier encodings would not be counted.",
            "Write the whole path: shells do not expand ~ after =, and files of settings never do.",
        )
    with explained(path):
        real = Path(os.path.realpath(path))
        if real.exists():
            _require_one_name(path, real)
        elif path.is_symlink():
            raise LedgerError(
                f"{path} is a symbolic link to {real}, where there is no ledger.",
                "Restore the ledger there, or remove the link to begin a new one, knowing that all "
                "counts are lost.",
            )
        elif _size(f"{real}-wal"):
            raise LedgerError(
                f"There is the log {real}-wal, but not its ledger: it was removed, or moved "
                "without its log.",
                "Restore the ledger beside its log; or move the log away, knowing that all counts "
                "are lost.",
            )
    return real


def _require_one_name(path: Path, real: Path) -> None:
    if not real.is_file():
        raise damaged(path)
    if real.stat().st_nlink > 1:
        _remove_leftovers(real)
    if real.stat().st_nlink > 1:
        raise LedgerError(
            f"The ledger {path} has a second name by a hard link. Programs that use the other name "
            "would not see the counts made under this one.",
            "Remove the other name (`find -samefile` finds it); use a symbolic link instead.",
        )
    if _is_mounted(real):
        raise LedgerError(
            f"The ledger {path} is a file that was mounted by itself: SQLite's log would lie "
            "beside it, and not beside the file that is mounted.",
            "Mount the folder that the ledger lies in.",
        )


def _remove_leftovers(real: Path) -> None:
    """Remove the temporary name of the ledger, if its creator was killed."""
    for entry in os.scandir(real.parent):
        made = entry.name.startswith(f".{real.stem}-") and entry.name.endswith(".new")
        if made and real.samefile(entry.path):
            Path(entry.path).unlink(missing_ok=True)


def _is_mounted(real: Path) -> bool:
    try:
        mounts = _MOUNTS.read_bytes().splitlines()
    except OSError:
        # Not Linux: single files cannot be mounted.
        return False
    # Spaces and other characters are octal escapes in this file.
    points = {line.split()[4] for line in mounts if len(line.split()) > 4}
    return any(_escaped(f"{real}{suffix}") in points for suffix in SUFFIXES)


def _escaped(path: str) -> bytes:
    return b"".join(
        f"\\{byte:03o}".encode() if byte in b" \t\n\\" else bytes([byte])
        for byte in os.fsencode(path)
    )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


class FileWatch:
    """The identity of a ledger's three files when it was opened.

    Args:
        given: path that the caller gave.
        path: the result of `resolve_path`. SQLite must have opened all three files.

    Raises:
        InstaHideError: a file is missing.
    """

    def __init__(self, given: Path, path: Path) -> None:
        self._given, self._path = given.absolute(), path
        self._names = tuple(f"{path}{suffix}" for suffix in SUFFIXES)
        with explained(path):
            found = [os.lstat(name) for name in self._names]
        self._identities = [(each.st_dev, each.st_ino) for each in found]
        self._log_size = 0
        self.require()

    def require(self) -> tuple[int, ...]:
        """Check that the files are the same ones, by the same name.

        Returns:
            Size and times of the database, which change with every write.

        Raises:
            InstaHideError: a file was removed, replaced, moved, or has a second name.
        """
        try:
            found = [os.lstat(name) for name in self._names]
            whither = os.path.realpath(self._given)
        except OSError as error:
            raise lost(self._given, "was removed or moved") from error
        for each, identity in zip(found, self._identities, strict=True):
            if not stat.S_ISREG(each.st_mode) or (each.st_dev, each.st_ino) != identity:
                raise lost(self._given, "was replaced or moved")
            if each.st_nlink != 1:
                raise lost(self._given, "was removed, or was given a second name by a hard link")
        if whither != self._names[0]:
            raise lost(self._given, "was moved, or is reached by another path")
        if found[1].st_size < self._log_size:
            raise lost(self._given, "was cut off in its log")
        self._log_size = found[1].st_size
        return found[0].st_size, found[0].st_mtime_ns, found[0].st_ctime_ns

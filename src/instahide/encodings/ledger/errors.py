"""Errors of a ledger's file, with remedies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instahide.errors import InstaHideError, LedgerError

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert errors of SQLite, the file system and parsing to `InstaHideError`.

    Raises:
        InstaHideError: the file at ``path`` cannot be used.
    """
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the kind of error; the others are details.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
        if code in _BUSY:
            raise _busy(path) from error
        if code in _DAMAGED:
            raise damaged(path) from error
        raise _unwritable(path, str(error)) from error
    except InstaHideError:
        raise
    except (IndexError, TypeError, ValueError) as error:
        # Errors of Python and NumPy on unexpected names and arrays.
        raise damaged(path) from error
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def damaged(path: Path) -> LedgerError:
    """The error for a file that is not a complete ledger, which is never replaced automatically."""
    return LedgerError(
        f"{path} is not a ledger, or is damaged.",
        "Restore it from a backup with its `-wal` file; to start a new ledger, knowing that all "
        "counts are lost, move this one away. INSTAHIDE_LEDGER names another.",
    )


def lost(path: Path, what: str) -> LedgerError:
    """The error for a ledger whose file was lost while open, so that counts would not be kept."""
    return LedgerError(
        f"The ledger {path} {what} while it was in use, so encodings cannot be counted.",
        "Restore the ledger that was in use, with its `-wal` file, and resume. Do not publish "
        "encodings made in the meantime: their counts may be missing.",
    )


def _busy(path: Path) -> LedgerError:
    return LedgerError(
        f"Another process has held the ledger {path} for too long.",
        "Wait until that process ends, or stop it; its counts are kept.",
    )


def _unwritable(path: Path, reason: str) -> LedgerError:
    return LedgerError(
        f"The ledger {path} cannot be written ({reason}), so encodings cannot be counted.",
        "Free some space, make it writable, or name another ledger with INSTAHIDE_LEDGER.",
    )

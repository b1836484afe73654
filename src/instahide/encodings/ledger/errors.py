"""What goes wrong with a ledger's file, in words that say what to do."""

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
    """Turn errors of the file at ``path``, and of reading what is in it, into sentences.

    Raises:
        InstaHideError: in the place of another error.
    """
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the kind; SQLite puts details above it.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
        if code in _BUSY:
            raise _busy(path) from error
        if code in _DAMAGED:
            raise damaged(path) from error
        raise _unwritable(path, str(error)) from error
    except InstaHideError:
        raise
    except (IndexError, TypeError, ValueError) as error:
        # What Python and NumPy say to names and arrays that are not as they should be.
        raise damaged(path) from error
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def damaged(path: Path) -> LedgerError:
    """The file is no ledger, or not a whole one. It is never started anew on its own."""
    return LedgerError(
        f"{path} is no ledger, or a damaged one.",
        "Restore it from a backup with its `-wal` file; to start a new ledger, knowing that all "
        "counts are lost, move this one away. INSTAHIDE_LEDGER names another.",
    )


def lost(path: Path, what: str) -> LedgerError:
    """The file is not the one that was opened: what would be counted now, nobody would read."""
    return LedgerError(
        f"The ledger {path} {what} while it was in use, and nothing may go out uncounted.",
        "Restore the very ledger that was in use, with its `-wal` file, and resume. Do not publish "
        "what was made meanwhile: its counts may be missing.",
    )


def _busy(path: Path) -> LedgerError:
    return LedgerError(
        f"Another process has held the ledger {path} for too long.",
        "Wait until it is done, or end it: what it counted is kept.",
    )


def _unwritable(path: Path, reason: str) -> LedgerError:
    return LedgerError(
        f"The ledger {path} cannot be written ({reason}), and nothing may go out uncounted.",
        "Free some space, make it writable, or name another ledger with INSTAHIDE_LEDGER.",
    )

"""The SQLite schema of a ledger, and functions to create and open its file.

====================  ==============================================================================
table                 holds
====================  ==============================================================================
``state``             one row: the salt, a random name, the number of images, the last folded take
``hashes``            16 bytes for each image, in the order in which images came
``totals``            for each image its count (uint32), its squared coefficients (float64) and its
                      losses (float64): the same, each times the rate of its take; no losses
                      where no take had noise
``renditions``        hashes of 16 bytes, sorted, and beside each the number (uint32) of an image
                      that it shows as well: at another size, or in another file format
``takes``             the journal: what was counted since, as image numbers (uint32, sorted),
                      squared coefficients (float32) and the rate of the loss, infinite without
                      noise (`encryption/privacy.py`)
``publications``      encoded folders in the making: how many copies of each image are done, if any
``shards``            their shards in flight, with the rows encrypted in each (uint32, sorted)
====================  ==============================================================================

All arrays are blobs of little-endian numbers: a row for each image would be too slow. SQLite does
not notice a damaged blob, so every row ends with a checksum, ``crc``, of the rest of it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import tempfile
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

from instahide.encodings.ledger.errors import damaged, explained
from instahide.encodings.ledger.image_hash import SALT_BYTES
from instahide.errors import LedgerError
from instahide.utils.atomic_write import require_regular

#: "INST", which marks a database as a ledger.
APPLICATION, VERSION = 0x494E5354, 1
#: Bytes. Blobs fill many pages, and SQLite's work is by the page: a sixth less time than with 4096.
PAGE = 1 << 14
#: Seconds to wait for another process.
PATIENCE = 60
#: Pages of SQLite's log before it goes into the database, and KiB of pages that a change may keep
#: in memory: so much that the journal of a million images is folded before it ever gets there.
LOG, CACHE = 8000, 64 << 10

# These two must come first: SQLite ignores them after the first write.
_SCHEMA = f"""
PRAGMA page_size = {PAGE};
PRAGMA auto_vacuum = FULL;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
PRAGMA journal_mode = WAL;
CREATE TABLE state (salt BLOB, name TEXT, images INTEGER, folded INTEGER, crc INTEGER);
CREATE TABLE hashes (first INTEGER PRIMARY KEY, hashes BLOB, crc INTEGER);
CREATE TABLE totals (
    first INTEGER PRIMARY KEY, counts BLOB, squares BLOB, losses BLOB, crc INTEGER
);
CREATE TABLE renditions (first INTEGER PRIMARY KEY, hashes BLOB, entries BLOB, crc INTEGER);
CREATE TABLE takes (id INTEGER PRIMARY KEY, entries BLOB, squares BLOB, rate REAL, crc INTEGER);
CREATE TABLE publications (
    id TEXT PRIMARY KEY, copies INTEGER, source BLOB, done BLOB, crc INTEGER
);
CREATE TABLE shards (
    publication TEXT, shard TEXT, rows BLOB, crc INTEGER, PRIMARY KEY (publication, shard)
);
"""

#: A row of a table, of whatever types its columns have.
Row: TypeAlias = tuple[Any, ...]


def with_crc(*values: object) -> Row:
    """A row of ``values`` followed by their checksum."""
    return *values, _crc(values)


def without_crc(row: Row | None) -> Row:
    """The values of a ``row`` made by `with_crc`.

    Raises:
        ValueError: the checksum is wrong, or there is no row.
    """
    if row is None or row[-1] != _crc(row[:-1]):
        raise ValueError("A row's checksum is not that of its values.")
    return tuple(row[:-1])


def _crc(values: Row) -> int:
    crc = 0
    for value in values:
        text = str(value).encode() if isinstance(value, int | float | str | None) else value
        crc = zlib.crc32(text, crc)
    return crc


def create(path: Path) -> None:
    """Create an empty ledger at ``path``, readable only by its owner, unless one exists.

    It is created atomically, so that an empty file is never taken for a new ledger.

    Raises:
        InstaHideError: the folder cannot be written.
    """
    with explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # `mkstemp` creates files that only the user may read.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".new")
        os.close(handle)
        try:
            with closing(sqlite3.connect(name, isolation_level=None)) as connection:
                connection.executescript(_SCHEMA)
                state = (secrets.token_bytes(SALT_BYTES), secrets.token_hex(16), 0, 0)
                connection.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?)", with_crc(*state))
            _link(Path(name), path)
        finally:
            Path(name).unlink(missing_ok=True)


def _link(made: Path, path: Path) -> None:
    try:
        path.hardlink_to(made)
    except FileExistsError:
        # Another process was faster; its ledger is used.
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def connected(path: Path) -> sqlite3.Connection:
    """Open the file at ``path`` such that deleted data is erased from it.

    Deleted pages are truncated, and the bytes of deleted rows are overwritten with zeros.

    Raises:
        sqlite3.Error: the file does not exist or cannot be read.
        OSError: it is not a regular file.
    """
    if path.exists():
        require_regular(path)
    # By URI, so that a missing file is not created.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for setting in (
            "synchronous = NORMAL",
            "secure_delete = ON",
            "temp_store = MEMORY",
            f"wal_autocheckpoint = {LOG}",
            f"cache_size = -{CACHE}",
        ):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def require_ledger(path: Path, connection: sqlite3.Connection) -> None:
    """Check that the database is a ledger of this version.

    Raises:
        LedgerError: the database is not a ledger, or is of another version.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise damaged(path)
    if version != VERSION:
        raise LedgerError(
            f"The ledger {path} has version {version}; this is for version {VERSION}.",
            "Use the release of instahide that made it, or a newer one.",
        )

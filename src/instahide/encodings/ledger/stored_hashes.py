"""The hashes in a ledger's file, and the images that they belong to.

Everything here is to be called while the file is being changed, as `LedgerFile.changing` has it.
"""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.ledger.image_hash import HASH_BYTES
from instahide.encodings.ledger.image_names import ImageLinks, ImageNames
from instahide.encodings.ledger.schema import with_crc, without_crc

#: Images in a blob, at most: SQLite takes no blob beyond a billion bytes.
CHUNK = 1 << 20


def read_hashes(connection: sqlite3.Connection, images: int) -> NDArray[np.bytes_]:
    """(M,) of all ``images``, in the order of their numbers.

    Raises:
        ValueError: there is not one for each.
    """
    rows = connection.execute("SELECT * FROM hashes ORDER BY first")
    hashes = b"".join(without_crc(row)[1] for row in rows)
    if len(hashes) != HASH_BYTES * images:
        raise ValueError("Not a hash for each image.")
    return np.frombuffer(hashes, f"S{HASH_BYTES}")


def read_names(connection: sqlite3.Connection, images: int) -> ImageNames:
    """All hashes of the ``images``, and of their renditions.

    Raises:
        ValueError: a rendition of no image.
    """
    rows = connection.execute("SELECT * FROM renditions ORDER BY first")
    parts = [without_crc(row)[1:] for row in rows]
    hashes = np.frombuffer(b"".join(part[0] for part in parts), f"S{HASH_BYTES}")
    entries = np.frombuffer(b"".join(part[1] for part in parts), "<u4").astype(np.int64)
    if len(hashes) != len(entries) or entries.max(initial=-1) >= images:
        raise ValueError("A rendition of an image that is not there.")
    return ImageNames(read_hashes(connection, images), ImageLinks(hashes, entries))


def insert_images(connection: sqlite3.Connection, first: int, hashes: NDArray[np.bytes_]) -> None:
    """Enter images with ``hashes`` (L,), numbered from ``first`` on, that were never counted."""
    for start in range(0, len(hashes), CHUNK):
        part = hashes[start : start + CHUNK]
        row = with_crc(first + start, part.tobytes())
        connection.execute("INSERT INTO hashes VALUES (?, ?, ?)", row)
        row = with_crc(first + start, bytes(4 * len(part)), bytes(8 * len(part)), b"")
        connection.execute("INSERT INTO totals VALUES (?, ?, ?, ?, ?)", row)


def insert_links(connection: sqlite3.Connection, links: ImageLinks) -> None:
    """Note renditions."""
    first = count_links(connection)
    for start in range(0, len(links.hashes), CHUNK):
        part = slice(start, start + CHUNK)
        entries = links.entries[part].astype("<u4").tobytes()
        row = with_crc(first + start, links.hashes[part].tobytes(), entries)
        connection.execute("INSERT INTO renditions VALUES (?, ?, ?, ?)", row)


def count_links(connection: sqlite3.Connection) -> int:
    """How many renditions are noted."""
    query = "SELECT first, length(entries) FROM renditions ORDER BY first DESC LIMIT 1"
    last = connection.execute(query).fetchone()
    return 0 if last is None else int(last[0]) + int(last[1]) // 4

"""Reads and writes the hashes in a ledger's file.

Call these functions inside `LedgerFile.changing`.
"""

from __future__ import annotations

import sqlite3

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.ledger.image_hash import HASH_BYTES
from instahide.encodings.ledger.image_names import ImageLinks, ImageNames
from instahide.encodings.ledger.schema import with_crc, without_crc

#: Largest number of images in a blob, which SQLite limits to a billion bytes.
CHUNK = 1 << 20


def read_hashes(connection: sqlite3.Connection, images: int) -> NDArray[np.bytes_]:
    """(M,) hashes of all ``images``, by number.

    Raises:
        ValueError: the number of hashes is wrong.
    """
    rows = connection.execute("SELECT * FROM hashes ORDER BY first")
    hashes = b"".join(without_crc(row)[1] for row in rows)
    if len(hashes) != HASH_BYTES * images:
        raise ValueError("Not a hash for each image.")
    return np.frombuffer(hashes, f"S{HASH_BYTES}")


def read_names(connection: sqlite3.Connection, images: int) -> ImageNames:
    """All hashes of the ``images``, and of their renditions.

    Raises:
        ValueError: a rendition belongs to no image.
    """
    rows = connection.execute("SELECT * FROM renditions ORDER BY first")
    parts = [without_crc(row)[1:] for row in rows]
    hashes = np.frombuffer(b"".join(part[0] for part in parts), f"S{HASH_BYTES}")
    entries = np.frombuffer(b"".join(part[1] for part in parts), "<u4").astype(np.int64)
    if len(hashes) != len(entries) or entries.max(initial=-1) >= images:
        raise ValueError("A rendition of an image that is not there.")
    return ImageNames(read_hashes(connection, images), ImageLinks(hashes, entries))


def insert_images(connection: sqlite3.Connection, first: int, hashes: NDArray[np.bytes_]) -> None:
    """Insert images with ``hashes`` (L,), numbered from ``first`` on, with counts of 0."""
    for start in range(0, len(hashes), CHUNK):
        part = hashes[start : start + CHUNK]
        row = with_crc(first + start, part.tobytes())
        connection.execute("INSERT INTO hashes VALUES (?, ?, ?)", row)
        row = with_crc(first + start, bytes(4 * len(part)), bytes(8 * len(part)), b"")
        connection.execute("INSERT INTO totals VALUES (?, ?, ?, ?, ?)", row)


def insert_links(connection: sqlite3.Connection, links: ImageLinks) -> None:
    """Store renditions."""
    first = count_links(connection)
    for start in range(0, len(links.hashes), CHUNK):
        part = slice(start, start + CHUNK)
        entries = links.entries[part].astype("<u4").tobytes()
        row = with_crc(first + start, links.hashes[part].tobytes(), entries)
        connection.execute("INSERT INTO renditions VALUES (?, ?, ?, ?)", row)


def count_links(connection: sqlite3.Connection) -> int:
    """The number of stored renditions."""
    query = "SELECT first, length(entries) FROM renditions ORDER BY first DESC LIMIT 1"
    last = connection.execute(query).fetchone()
    return 0 if last is None else int(last[0]) + int(last[1]) // 4

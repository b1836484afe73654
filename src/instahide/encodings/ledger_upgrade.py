"""A ledger of the version before noise, brought up to date: no count may be lost."""

from __future__ import annotations

import math
import sqlite3

import numpy as np

from instahide.encodings.ledger_schema import COUNTED, EARLIER, VERSION, with_crc, without_crc


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring the ledger behind ``connection`` to this version, whole or not at all.

    Whatever went out before has no guarantee: its loss is infinite.

    Raises:
        ValueError: a row is damaged.
    """
    if _version(connection) != EARLIER:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster.
        if _version(connection) == EARLIER:
            _rewrite(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _rewrite(connection: sqlite3.Connection) -> None:
    totals, takes = (
        [without_crc(row) for row in connection.execute(f"SELECT * FROM {table}")]  # noqa: S608
        for table in ("totals", "takes")
    )
    for statement in ("DROP TABLE totals", "DROP TABLE takes", *COUNTED.split(";")):
        connection.execute(statement)
    for first, counts, squares in totals:
        losses = np.where(np.frombuffer(counts, "<u4") > 0, math.inf, 0.0).astype("<f8")
        row = with_crc(first, counts, squares, losses.tobytes())
        connection.execute("INSERT INTO totals VALUES (?, ?, ?, ?, ?)", row)
    for take, entries, squares in takes:
        row = with_crc(take, entries, squares, math.inf)
        connection.execute("INSERT INTO takes VALUES (?, ?, ?, ?, ?)", row)
    connection.execute(f"PRAGMA user_version = {VERSION}")

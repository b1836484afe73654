"""The counts of a ledger, in memory and in its file.

A take appends to the journal, and that is all: it is added up when somebody wants to know, many
takes at a time. When the journal has outgrown the totals, and whenever the file is opened or
closed, it is folded into them: what SQLite deletes leaves the file, so that no trace is left of
which images were counted together.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.ledger_errors import explained
from instahide.encodings.ledger_names import insert_images, insert_links, legacy_images, read_names
from instahide.encodings.ledger_schema import connected, require_ledger, with_crc, without_crc
from instahide.encodings.names import Names, inherited, missing_links, primary
from instahide.errors import InstaHideError

#: The journal is folded when a process has made it so many times as large as the totals: writing
#: them then costs little beside writing the journal, and wiping it.
FOLD_AT = 4
#: Fewer numbers than one image in so many are added one by one: all images take longer then.
ONE_BY_ONE = 4
_TOTAL_BYTES = 4 + 8 + 8


class LedgerFile:
    """The counts of all images of a ledger, in memory and on disk. Safe between threads.

    Attributes:
        path: of the database.
        name: random, made with the ledger.
        legacy: how many of the first images are known by hashes of an older version only.
        salt: of its hashes. Whoever has it can tell whether a guessed image was counted.
        counts: (M,) encodings that each image went into, as far as was seen.
        squares: (M,) sums of its squared coefficients in them.
        losses: (M,) sums of the same, each times the rate of its take.

    Raises:
        InstaHideError: there is no such file, it is damaged, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: NDArray[np.int64] = np.empty(0, np.int64)
        self.squares: NDArray[np.float64] = np.empty(0, np.float64)
        self.losses: NDArray[np.float64] = np.empty(0, np.float64)
        self._lock = threading.RLock()
        self._process = os.getpid()
        #: The last take that is in the arrays; before the first, so that they are read.
        self._seen = -1
        #: Of the journal, written here since it was folded here.
        self._journal_bytes = 0
        with explained(path):
            self._connection = connected(path)
            weakref.finalize(self, self._connection.close)
        try:
            with explained(path):
                require_ledger(path, self._connection)
                self.salt, self.name, _, _ = self._state()
                self.legacy = legacy_images(self._connection)
            self.refresh()
            self.fold()
        except BaseException:
            # It would hold its locks for as long as anybody keeps the exception.
            self._connection.close()
            raise

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One change of the file, whole or not at all; no kill can undo it after the block.

        In the block no other process can change it.

        Raises:
            InstaHideError: the file is damaged, cannot be written, or belongs to another process.
        """
        self._require_own_process()
        with self._lock, explained(self.path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # The arrays may be ahead of the file now: read them again.
                self._seen = -1
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def refresh(self) -> None:
        """See what has been counted until now, by anyone.

        Raises:
            InstaHideError: as `changing`.
        """
        with self.changing():
            self.catch_up()

    def catch_up(self) -> None:
        """Bring `counts`, `squares` and `losses` up to date; only while `changing`."""
        _, _, images, folded = self._state()
        if folded > self._seen or images != len(self.counts):
            self._load(images, folded)
        takes = self._connection.execute(
            "SELECT * FROM takes WHERE id > ? ORDER BY id", (self._seen,)
        )
        for rate, together in groupby(map(without_crc, takes), itemgetter(3)):
            for part in self._split(together):
                self._apply(part, rate)

    def add(self, entries: NDArray[np.uint32], squares: NDArray[np.float32], rate: float) -> None:
        """Count ``entries`` (n,) with their ``squares`` (n,); only while `changing`.

        A square costs ``rate`` times as much of what noise guarantees.
        """
        numbers, values = _sorted(entries, squares)
        row = with_crc(self._last() + 1, numbers.data, values.data, rate)
        self._connection.execute("INSERT INTO takes VALUES (?, ?, ?, ?, ?)", row)
        self._journal_bytes += numbers.nbytes + values.nbytes
        if self._journal_bytes > FOLD_AT * _TOTAL_BYTES * len(self.counts):
            self._fold()

    def find(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """(N, w) numbers of the images that rows known by ``keys`` (N, m) are counted as.

        Spare places have -1; a row that is not known has nothing else. Nothing is entered.

        Raises:
            InstaHideError: as `changing`.
        """
        with self.changing():
            self.catch_up()
            return self._names().of_rows(keys)

    def enter(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """As `find`; an image is made for each row that has none, and hashes are noted.

        New ones are in the database itself then: nothing that is counted has to wait for them.

        Raises:
            InstaHideError: as `changing`.
        """
        with self.changing() as connection:
            self.catch_up()
            names = self._names()
            first = primary(keys)
            new = np.unique(first[~names.known(first)])
            if len(new):
                self._insert(new)
                names = self._names()
            links = missing_links(names, keys)
            if len(links.hashes):
                self._raise(*inherited(names, links, self.counts))
                insert_links(connection, links)
                names = self._names()
            found = names.of_rows(keys)
        if len(new) or len(links.hashes):
            with explained(self.path):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return found

    def _insert(self, new: NDArray[np.bytes_]) -> None:
        """Enter images with the hashes ``new`` (L,), which are all different and sorted."""
        insert_images(self._connection, len(self.counts), new)
        self.counts = np.concatenate([self.counts, np.zeros(len(new), np.int64)])
        self.squares = np.concatenate([self.squares, np.zeros(len(new))])
        self.losses = np.concatenate([self.losses, np.zeros(len(new))])
        _, _, _, folded = self._state()
        self._write_state(folded)

    def _raise(self, targets: NDArray[np.int64], origins: NDArray[np.int64]) -> None:
        """Add the totals of the images ``origins`` (n,) to those of ``targets`` (n,)."""
        counted = self.counts[origins] > 0
        if not counted.any():
            return
        targets, origins = targets[counted], origins[counted]
        for totals in (self.counts, self.squares, self.losses):
            np.add.at(totals, targets, totals[origins])
        # Under a number of its own, so that other processes read the totals again.
        self._seen += 1
        self._fold()

    def _names(self) -> Names:
        return read_names(self._connection, len(self.counts))

    def fold(self) -> None:
        """Leave no trace of what was counted together.

        Raises:
            InstaHideError: as `changing`.
        """
        with self.changing():
            _, _, _, folded = self._state()
            if self._last() > folded:
                self._fold()

    def sync(self) -> None:
        """Wait until no power cut can undo what was changed.

        Not a part of every change: it takes milliseconds, and others need not wait for it.

        Raises:
            InstaHideError: the disk fails.
        """
        with explained(self.path):
            # All changes since SQLite itself last waited for the disk are in this file.
            log = os.open(f"{self.path}-wal", os.O_RDONLY)
            try:
                os.fdatasync(log)
            finally:
                os.close(log)

    def close(self) -> None:
        """Fold the journal and let go of the file.

        Raises:
            InstaHideError: as `changing`.
        """
        with self._lock, explained(self.path):
            # Closing brings the log into the database: once is enough.
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")
            try:
                self.fold()
            finally:
                self._connection.close()

    def _state(self) -> tuple[bytes, str, int, int]:
        """Salt, name, number of images, and the last take that is in the totals."""
        rows = self._connection.execute("SELECT * FROM state").fetchall()
        salt, name, images, folded = without_crc(rows[0])
        return salt, name, images, folded

    def _write_state(self, folded: int) -> None:
        row = with_crc(self.salt, self.name, len(self.counts), folded)
        self._connection.execute(
            "UPDATE state SET salt = ?, name = ?, images = ?, folded = ?, crc = ?", row
        )

    def _last(self) -> int:
        """The last take, in the totals or in the journal."""
        last = "SELECT coalesce((SELECT max(id) FROM takes), folded) FROM state"
        (number,) = self._connection.execute(last).fetchone()
        return int(number)

    def _load(self, images: int, folded: int) -> None:
        rows = self._connection.execute("SELECT * FROM totals ORDER BY first")
        totals = [without_crc(row) for row in rows]
        counts = [np.frombuffer(row[1], "<u4") for row in totals]
        squares = [np.frombuffer(row[2], "<f8") for row in totals]
        losses = [
            np.frombuffer(row[3], "<f8") if row[3] else _without_noise(part)
            for row, part in zip(totals, counts, strict=True)
        ]
        self.counts = np.concatenate([np.empty(0, np.int64), *counts])
        self.squares = np.concatenate([np.empty(0, np.float64), *squares])
        self.losses = np.concatenate([np.empty(0, np.float64), *losses])
        if not len(self.counts) == len(self.squares) == len(self.losses) == images:
            raise ValueError("Not a count and two sums for each image.")
        self._seen = folded

    def _split(self, takes: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
        """``takes``, as many at a time as are worth adding up together."""
        part: list[tuple[Any, ...]] = []
        size = 0
        for take in takes:
            part.append(take)
            size += len(take[1]) // 4
            if size >= len(self.counts):
                yield part
                part, size = [], 0
        if part:
            yield part

    def _apply(self, takes: list[tuple[Any, ...]], rate: float) -> None:
        """Add up ``takes``, rows of the journal of one ``rate``."""
        numbers = np.frombuffer(b"".join(take[1] for take in takes), "<u4").astype(np.intp)
        squares = np.frombuffer(b"".join(take[2] for take in takes), "<f4").astype(np.float64)
        if numbers.max(initial=0) >= len(self.counts) or len(numbers) != len(squares):
            raise ValueError("A take of images that are not there.")
        _add(self.counts, numbers, None)
        _add(self.squares, numbers, squares)
        if rate < math.inf:
            _add(self.losses, numbers, rate * squares)
        else:
            self.losses[numbers] = math.inf
        self._seen = takes[-1][0]

    def _fold(self) -> None:
        self.catch_up()
        firsts = self._connection.execute("SELECT first FROM totals ORDER BY first").fetchall()
        ends = [*(first for (first,) in firsts[1:]), len(self.counts)]
        for (first,), end in zip(firsts, ends, strict=True):
            counts = self.counts[first:end].astype("<u4")
            squares = self.squares[first:end].astype("<f8")
            losses = self.losses[first:end].astype("<f8")
            if np.array_equal(losses, _without_noise(counts)):
                losses = losses[:0]
            # Not replaced, which would wipe the row first: what is as large is written over.
            self._connection.execute(
                "UPDATE totals SET (counts, squares, losses, crc) = (?2, ?3, ?4, ?5) "
                "WHERE first = ?1",
                with_crc(first, counts.data, squares.data, losses.data),
            )
        self._connection.execute("DELETE FROM takes")
        self._write_state(self._seen)
        self._journal_bytes = 0

    def _require_own_process(self) -> None:
        # SQLite's locks do not hold between a process and its fork.
        if os.getpid() != self._process:
            raise InstaHideError(
                "A ledger that one process opened cannot be used in its fork.",
                "Open the ledger there, or start processes with `spawn`.",
            )


def _without_noise(counts: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The losses of images that never went out with noise, of which the file says nothing."""
    return np.where(counts > 0, math.inf, 0.0)


def _add(
    totals: NDArray[Any], numbers: NDArray[np.intp], values: NDArray[np.float64] | None
) -> None:
    """Add to ``totals[numbers]`` the ``values``, or 1; a number may be there more than once."""
    if ONE_BY_ONE * len(numbers) > len(totals):
        totals += np.bincount(numbers, values, minlength=len(totals))
    else:
        np.add.at(totals, numbers, 1 if values is None else values)


def _sorted(
    entries: NDArray[np.uint32], squares: NDArray[np.float32]
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """``entries`` in ascending order, each with its square, as the journal keeps them."""
    # A positive float's bits sort as it does: as one number they are sorted fastest.
    both = entries.astype("<u8") << np.uint64(32) | squares.astype("<f4").view("<u4")
    both.sort()
    halves = both.view("<u4").reshape(-1, 2)
    return halves[:, 1].copy(), halves[:, 0].copy().view("<f4")

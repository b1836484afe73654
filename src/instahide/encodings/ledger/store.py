"""The counts of a ledger, in memory and in its file.

A take, one batch of counted mixes, is appended to the journal. Takes are summed, many at a time,
when counts are read. When the journal has outgrown the totals, and whenever the file is opened or
closed, it is folded into the totals. SQLite erases deleted data from the file, so that it does not
show which images were counted together.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.ledger.counts import LedgerCounts, without_noise
from instahide.encodings.ledger.errors import damaged, explained, lost
from instahide.encodings.ledger.file_watch import FileWatch, resolve_path
from instahide.encodings.ledger.image_names import ImageNames, inherited, missing_links, primary
from instahide.encodings.ledger.schema import connected, require_ledger, with_crc
from instahide.encodings.ledger.stored_hashes import (
    insert_images,
    insert_links,
    read_names,
)
from instahide.errors import InstaHideError, LedgerError

#: The journal is folded when a process has made it so many times as large as the totals, so that
#: writing the totals costs little compared with the journal.
FOLD_AT = 4
_TOTAL_BYTES = 4 + 8 + 8


class LedgerFile(LedgerCounts):
    """The counts of all images of a ledger, in memory and on disk. Safe between threads.

    After every write, and in `check`, it verifies that the counts are in the file at its path
    (`FileWatch`) and were not replaced by others.

    Args:
        path: path of the database; symbolic links are resolved once.

    Attributes:
        path: path of the database, without symbolic links.
        name: random name of the ledger.
        salt: salt of its hashes. With it, one can test whether a guessed image was counted.
        counts: (M,) exposure of each image, up to the last take that was read.
        squares: (M,) sums of the squared coefficients of each image.
        losses: (M,) sums of the squared coefficients, each times the rate of its take.

    Raises:
        InstaHideError: the file does not exist, is damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = resolve_path(path)
        self._lock = threading.RLock()
        self._process = os.getpid()
        #: Bytes that this process wrote to the journal since it last folded it.
        self._journal_bytes = 0
        self._watch: FileWatch | None = None
        self._lost: InstaHideError | None = None
        with explained(path):
            before = self.path.stat()
            connection = connected(self.path)
        self._finalizer = weakref.finalize(self, connection.close)
        try:
            self._open(path, connection, before)
        except BaseException:
            # Otherwise it would keep its locks as long as the exception is referenced.
            self._finalizer()
            raise

    def _open(self, path: Path, connection: sqlite3.Connection, before: os.stat_result) -> None:
        """Read the file at ``path``, which had the status ``before`` before it was opened."""
        with explained(path):
            require_ledger(path, connection)
            # A copy by other tools may be in another journal mode, without the watched log.
            connection.execute("PRAGMA journal_mode = WAL")
            super().__init__(connection)
        self.refresh()
        self.fold()
        with explained(path):
            self._watch = FileWatch(path, self.path)
            #: The result of `FileWatch.require` when counts were last compared.
            self._written = self._watch.require()
            if not os.path.samestat(before, self.path.stat()):
                raise lost(path, "was replaced")
        self.check()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction. After the block it survives a kill of the process.

        During the block no other process can change the file.

        Raises:
            InstaHideError: the file is damaged, cannot be written, or belongs to another process.
        """
        self._require_own_process()
        with self._lock, explained(self.path):
            self._require_intact()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                # The arrays may be ahead of the file now, so read them again.
                self._seen = None
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    # If the file is gone, report that instead.
                    self._require_intact()
                raise
            self._require_intact()

    def check(self) -> None:
        """Check that the counts are in the file and that the file is still at its path.

        Call it before you give encodings to anybody.

        Raises:
            InstaHideError: the file was removed, replaced, moved, cut off or overwritten.
        """
        self._require_own_process()
        with self._lock:
            self._require_intact()

    def _require_intact(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._watch is None:
            return
        try:
            written = self._watch.require()
            if written != self._written:
                # SQLite itself and other processes also write to the file.
                self._require_counts()
                self._written = written
        except InstaHideError as error:
            self._lost = error
            self._abandon()
            raise

    def _require_counts(self) -> None:
        """Compare the counts with the file, read through a new connection without a cache."""
        try:
            with explained(self.path), closing(connected(self.path)) as connection:
                connection.execute("BEGIN")
                if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                    raise damaged(self.path)
                found = LedgerCounts(connection)
                found.catch_up()
        except InstaHideError as error:
            raise lost(self.path, "was damaged or overwritten") from error
        if not found.holds(self):
            raise lost(self.path, "was overwritten by another ledger, or by an older copy")

    def _abandon(self) -> None:
        # On close, SQLite would delete log and index by name, which may be another ledger's by now.
        # So the connection is never closed, and the files can still be recovered.
        self._finalizer.detach()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))

    def refresh(self) -> None:
        """Read the counts of all processes so far.

        Raises:
            InstaHideError: as `changing`.
        """
        with self.changing():
            self.catch_up()

    def add(self, entries: NDArray[np.uint32], squares: NDArray[np.float32], rate: float) -> None:
        """Count ``entries`` (n,) with their ``squares`` (n,); only inside `changing`.

        The loss of an entry is ``rate`` times its square.
        """
        numbers, values = _sorted(entries, squares)
        row = with_crc(self._last() + 1, numbers.data, values.data, rate)
        self._connection.execute("INSERT INTO takes VALUES (?, ?, ?, ?, ?)", row)
        self._journal_bytes += numbers.nbytes + values.nbytes
        if self._journal_bytes > FOLD_AT * _TOTAL_BYTES * len(self.counts):
            self._fold()

    def find(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """(N, w) entries of the rows with hashes ``keys`` (N, m), padded with -1.

        An unknown row has no entry; nothing is entered.

        Raises:
            InstaHideError: as `changing`.
        """
        with self.changing():
            self.catch_up()
            return self._names().of_rows(keys)

    def enter(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """As `find`, but creates entries for unknown rows and stores their hashes.

        New entries are written to the database at once, so that later counts need not wait for
        them.

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
        """Create entries with the hashes ``new`` (L,), which are distinct and sorted."""
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
        np.add.at(self.counts, targets, self.counts[origins])
        np.add.at(self.squares, targets, self.squares[origins])
        # A mix may hold several of these images, and change by all of them at once. The square
        # roots add up to no less than the square root of its loss (the triangle inequality).
        roots = np.sqrt(self.losses)
        np.add.at(roots, targets, roots[origins])
        self.losses[targets] = roots[targets] ** 2
        # Under a new take number, so that other processes read the totals again.
        self._seen = self.seen + 1
        self._fold()

    def _names(self) -> ImageNames:
        return read_names(self._connection, len(self.counts))

    def fold(self) -> None:
        """Fold the journal, which shows which images were counted together, into the totals.

        Raises:
            InstaHideError: as `changing`.
        """
        with self.changing():
            _, _, _, folded = self._state()
            if self._last() > folded:
                self._fold()

    def sync(self) -> None:
        """Wait until all changes survive a power cut.

        This is not part of every change, because it takes milliseconds.

        Raises:
            InstaHideError: the disk fails.
        """
        self.check()
        with explained(self.path):
            # This file has all changes since SQLite itself last synchronized.
            log = os.open(f"{self.path}-wal", os.O_RDONLY)
            try:
                os.fdatasync(log)
            finally:
                os.close(log)
        self.check()

    def close(self) -> None:
        """Fold the journal and close the file.

        Raises:
            InstaHideError: as `changing`.
        """
        with self._lock, explained(self.path):
            if self._lost is not None:
                return
            # Closing merges the log into the database; doing that once is enough.
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")
            try:
                self.fold()
            finally:
                # Does nothing if the file was lost.
                self._finalizer()

    def _write_state(self, folded: int) -> None:
        row = with_crc(self.salt, self.name, len(self.counts), folded)
        self._connection.execute(
            "UPDATE state SET salt = ?, name = ?, images = ?, folded = ?, crc = ?", row
        )

    def _fold(self) -> None:
        self.catch_up()
        firsts = self._connection.execute("SELECT first FROM totals ORDER BY first").fetchall()
        ends = [*(first for (first,) in firsts[1:]), len(self.counts)]
        for (first,), end in zip(firsts, ends, strict=True):
            counts = self.counts[first:end].astype("<u4")
            squares = self.squares[first:end].astype("<f8")
            losses = self.losses[first:end].astype("<f8")
            if np.array_equal(losses, without_noise(counts)):
                losses = losses[:0]
            _, *row = with_crc(first, counts.data, squares.data, losses.data)
            # An update of the same size is written in place; REPLACE would erase the row first.
            self._connection.execute(
                "UPDATE totals SET (counts, squares, losses, crc) = (?, ?, ?, ?) WHERE first = ?",
                (*row, first),
            )
        self._connection.execute("DELETE FROM takes")
        self._write_state(self.seen)
        self._journal_bytes = 0

    def _require_own_process(self) -> None:
        # SQLite's locks do not work between a process and its fork.
        if os.getpid() != self._process:
            raise LedgerError(
                "A ledger that one process opened cannot be used in its fork.",
                "Open the ledger there, or start processes with `spawn`.",
            )


def _sorted(
    entries: NDArray[np.uint32], squares: NDArray[np.float32]
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """``entries`` in ascending order with their squares, as the journal stores them."""
    # The bits of positive floats sort like the floats, so both are sorted as one integer.
    both = entries.astype("<u8") << np.uint64(32) | squares.astype("<f4").view("<u4")
    both.sort()
    halves = both.view("<u4").reshape(-1, 2)
    return halves[:, 1].copy(), halves[:, 0].copy().view("<f4")

"""The counts of a ledger, in memory and in its file.

A take appends to the journal, and that is all: it is added up when somebody wants to know, many
takes at a time. When the journal has outgrown the totals, and whenever the file is opened or
closed, it is folded into them: what SQLite deletes leaves the file, so that no trace is left of
which images were counted together.
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

#: The journal is folded when a process has made it so many times as large as the totals: writing
#: them then costs little beside writing the journal, and wiping it.
FOLD_AT = 4
_TOTAL_BYTES = 4 + 8 + 8


class LedgerFile(LedgerCounts):
    """The counts of all images of a ledger, in memory and on disk. Safe between threads.

    Whenever something was written, and whenever it is asked, it checks that this went into the file
    that everybody finds by the same path (`FileWatch`), and that nobody put other counts there.

    Args:
        path: of the database; symbolic links are followed once.

    Attributes:
        path: of the database, without symbolic links.
        name: random, made with the ledger.
        salt: of its hashes. Whoever has it can tell whether a guessed image was counted.
        counts: (M,) encodings that each image went into, as far as was seen.
        squares: (M,) sums of its squared coefficients in them.
        losses: (M,) sums of the same, each times the rate of its take.

    Raises:
        InstaHideError: there is no such file, it is damaged, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = resolve_path(path)
        self._lock = threading.RLock()
        self._process = os.getpid()
        #: Of the journal, written here since it was folded here.
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
            # It would hold its locks for as long as anybody keeps the exception.
            self._finalizer()
            raise

    def _open(self, path: Path, connection: sqlite3.Connection, before: os.stat_result) -> None:
        """Read the file at ``path``, which was the file ``before`` when it was connected to."""
        with explained(path):
            require_ledger(path, connection)
            # A copy made by other tools may keep no log, which is what is watched.
            connection.execute("PRAGMA journal_mode = WAL")
            super().__init__(connection)
        self.refresh()
        self.fold()
        with explained(path):
            self._watch = FileWatch(path, self.path)
            #: As `FileWatch.require` gave it when the counts were last compared.
            self._written = self._watch.require()
            if not os.path.samestat(before, self.path.stat()):
                raise lost(path, "was replaced")
        self.check()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One change of the file, whole or not at all; no kill can undo it after the block.

        In the block no other process can change it.

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
                # The arrays may be ahead of the file now: read them again.
                self._seen = None
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    # It is no full disk, say, if the file is gone.
                    self._require_intact()
                raise
            self._require_intact()

    def check(self) -> None:
        """Check that what was counted is in the file that was opened, where everybody finds it.

        To be called before encodings are given to anybody.

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
                # SQLite writes there now and then, and others may.
                self._require_counts()
                self._written = written
        except InstaHideError as error:
            self._lost = error
            self._abandon()
            raise

    def _require_counts(self) -> None:
        """Read the file through a new connection, which has nothing of it in memory yet."""
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
        # SQLite would delete the log and the index by their names when the connection is closed,
        # and these may be another ledger's by now. What stays can still be put together.
        self._finalizer.detach()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))

    def refresh(self) -> None:
        """See what has been counted until now, by anyone.

        Raises:
            InstaHideError: as `changing`.
        """
        with self.changing():
            self.catch_up()

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
        self._seen = self.seen + 1
        self._fold()

    def _names(self) -> ImageNames:
        return read_names(self._connection, len(self.counts))

    def fold(self) -> None:
        """Leave no trace in the file of what was counted together.

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
        self.check()
        with explained(self.path):
            # All changes since SQLite itself last waited for the disk are in this file.
            log = os.open(f"{self.path}-wal", os.O_RDONLY)
            try:
                os.fdatasync(log)
            finally:
                os.close(log)
        self.check()

    def close(self) -> None:
        """Fold the journal and let go of the file.

        Raises:
            InstaHideError: as `changing`.
        """
        with self._lock, explained(self.path):
            if self._lost is not None:
                return
            # Closing brings the log into the database: once is enough.
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")
            try:
                self.fold()
            finally:
                # Does nothing where the file was lost.
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
            # Not replaced, which would wipe the row first: what is as large is written over.
            self._connection.execute(
                "UPDATE totals SET (counts, squares, losses, crc) = (?2, ?3, ?4, ?5) "
                "WHERE first = ?1",
                with_crc(first, counts.data, squares.data, losses.data),
            )
        self._connection.execute("DELETE FROM takes")
        self._write_state(self.seen)
        self._journal_bytes = 0

    def _require_own_process(self) -> None:
        # SQLite's locks do not hold between a process and its fork.
        if os.getpid() != self._process:
            raise LedgerError(
                "A ledger that one process opened cannot be used in its fork.",
                "Open the ledger there, or start processes with `spawn`.",
            )


def _sorted(
    entries: NDArray[np.uint32], squares: NDArray[np.float32]
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """``entries`` in ascending order, each with its square, as the journal keeps them."""
    # A positive float's bits sort as it does: as one number they are sorted fastest.
    both = entries.astype("<u8") << np.uint64(32) | squares.astype("<f4").view("<u4")
    both.sort()
    halves = both.view("<u4").reshape(-1, 2)
    return halves[:, 1].copy(), halves[:, 0].copy().view("<f4")

"""`LedgerAccount`: the exposure of a data set's images, counted in a ledger."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Container, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import connected_ids, merge_ids
from instahide.encodings.ledger.schema import with_crc, without_crc
from instahide.encodings.ledger.store import LedgerFile
from instahide.encodings.ledger.stored_hashes import count_links
from instahide.encryption.exposure import Exposure, Scalar, once_each, require_limit
from instahide.encryption.guarantees.loss_limit import LossLimit
from instahide.errors import LedgerError


class LedgerAccount(Exposure):
    """The rows of one data set in a ledger. Rows of the same picture or source share one count.

    `record` returns after its counts are in the file, so they survive if the process is killed.
    Call `sync` before encodings leave the memory of the machine, so that the counts also survive a
    power cut. The limit holds over all processes together. A pickled copy counts in the same
    ledger, which must be accessible on its machine.

    Args:
        file: the open ledger.
        hashes: (N, m) hashes that identify the rows, empty if unknown; those of the pictures
            first. New rows are entered.
        limit: largest exposure of an image; None for no limit.
        rate: mu^2 of a squared coefficient of 1; see `privacy.mu_squared_rate`.
        loss_limit: largest loss of an image, including all earlier encodings; None for no limit.
    """

    def __init__(
        self,
        file: LedgerFile,
        hashes: NDArray[np.bytes_],
        limit: int | None,
        rate: float,
        loss_limit: LossLimit | None = None,
    ) -> None:
        self.images = len(hashes)
        require_limit(limit)
        self.limit = limit
        self.loss_limit = loss_limit
        self._file = file
        self._hashes = hashes
        self._rate = rate
        self._enter()

    def _enter(self) -> None:
        """Look up the entries of the rows in the ledger."""
        entries = self._file.enter(self._hashes)
        with self._file.changing() as connection:
            self._links = count_links(connection)
        #: (N,) numbers of the images in the ledger; or (N, w), if a row counts for several images,
        #: padded with -1. In 32 bits, because random access is then six times as fast.
        self._entries = entries[:, 0].astype(np.uint32) if entries.shape[1] == 1 else entries

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) exposure of each image, counted by all processes so far."""
        self._file.refresh()
        return greatest(self._file.counts, self._entries)

    @property
    def squares(self) -> NDArray[np.float64]:
        """(N,) sums of its squared coefficients in them."""
        self._file.refresh()
        return greatest(self._file.squares, self._entries)

    @property
    def losses(self) -> NDArray[np.float64]:
        """(N,) mu^2 of each image, as in `Totals`."""
        self._file.refresh()
        return greatest(self._file.losses, self._entries)

    def further(self) -> NDArray[np.int64] | None:
        """(N,) encodings that each image may certainly still go into; None without a limit."""
        return self._further(self.counts, self.losses) if self.limited else None

    def group(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """As `Exposure.group`; also groups rows that have a common source by the ledger."""
        return merge_ids(ids, self.pictures())

    def pictures(self) -> NDArray[np.int64]:
        """(N,) numbers from 0, equal for rows that are counted together."""
        return rows_together(self._entries.reshape(self.images, -1).astype(np.int64))

    def require_rate(self, rate: float) -> None:
        """As `Exposure.require_rate`."""
        if rate > self._rate * (1 + 1e-9):
            raise LedgerError(
                "The account of the ledger was opened for a scheme with more noise, or for images "
                "under another normalization, so its epsilon would be too small.",
                "Open it with the scheme that encrypts, and with the mean and std of the images.",
            )

    def exhausted(self) -> NDArray[np.bool] | None:
        """(N,) whether each image is at its limit; None if no image is."""
        if not self.limited:
            return None
        self._file.refresh()
        full = self._exhausted(self._file.counts, self._file.losses)
        if not full.any():
            return None
        spent = greatest(full, self._entries)
        return spent if spent.any() else None

    def record(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> int:
        """As `Exposure.record`; returns after the counts are in the ledger's file.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        return self._take(rows, coefficients, together=False)

    def take_all(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> bool:
        """As `record`, but counts all mixes or none; returns whether they were counted.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        return self._take(rows, coefficients, together=True) == len(rows)

    def _take(
        self, rows: NDArray[np.int64], coefficients: NDArray[np.float32], *, together: bool
    ) -> int:
        while True:
            with self._file.changing() as connection:
                if count_links(connection) == self._links:
                    return self._count(rows, coefficients, together)
            # Another process has found that some of these are renditions of other images.
            self._enter()

    def _count(
        self, rows: NDArray[np.int64], coefficients: NDArray[np.float32], together: bool
    ) -> int:
        entries, weights = self._spread(rows, coefficients)
        taken = len(rows)
        if self.limited:
            self._file.catch_up()
            taken = self._within(entries, weights, self._file.counts, self._file.losses)
            taken = 0 if together and taken < len(rows) else taken
        if taken:
            flat, squares = entries[:taken].reshape(-1), np.square(weights[:taken]).reshape(-1)
            if (flat < 0).any():
                flat, squares = flat[flat >= 0], squares[flat >= 0]
            self._file.add(flat.astype(np.uint32), squares, self._rate)
        return taken

    def _spread(
        self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(n, q) distinct images of each mix, padded with -1, and their coefficients."""
        each = 1 if self._entries.ndim == 1 else self._entries.shape[1]
        entries = self._entries[rows].astype(np.int64).reshape(len(rows), each * rows.shape[1])
        weights = np.repeat(np.asarray(coefficients, np.float32), each, axis=1)
        return once_each(entries, weights)

    def sync(self) -> None:
        """Wait until the counts survive a power cut.

        Call it before you write encodings to a place where others may read them.

        Raises:
            InstaHideError: the disk fails.
        """
        self._file.sync()

    def check(self) -> None:
        """Check that the counts are in the ledger's file and that the file is still at its path.

        Call it before you give encodings to anybody; all other methods check it too.

        Raises:
            InstaHideError: the file was removed, replaced, moved or overwritten.
        """
        self._file.check()

    def fold(self) -> None:
        """Remove the journal, which tells which images were counted together.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        self._file.fold()

    def begin(self, publication: str, copies: int) -> None:
        """Record a new folder that will hold ``copies`` encodings of each image.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        with self._file.changing() as connection:
            connection.execute(
                "REPLACE INTO publications VALUES (?, ?, ?, ?, ?)",
                with_crc(publication, copies, self.identity, b""),
            )

    def pending(self, publication: str, shards: Mapping[str, NDArray[np.int64]]) -> None:
        """Record which rows (n,) each of ``shards`` encrypts, before their files are written.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        notes = [
            with_crc(publication, shard, np.sort(rows.astype("<u4")).data)
            for shard, rows in shards.items()
        ]
        with self._file.changing() as connection:
            connection.executemany("REPLACE INTO shards VALUES (?, ?, ?, ?)", notes)

    def remaining(
        self, publication: str, finished: Container[str], encodings: int = 0
    ) -> NDArray[np.int64]:
        """Rows still to be encrypted, sorted, each repeated for every missing copy.

        Pending shards in ``finished`` are marked as done; all others are dropped.

        Args:
            publication: identifier of the encoded folder.
            finished: names of its finished shards.
            encodings: number of encodings in these, at least.

        Raises:
            LedgerError: the folder was started with another ledger or other images, or the ledger
                is an older copy, which lacks finished shards.
        """
        with self._file.changing() as connection:
            copies, done = self._begun(connection, publication)
            shards = connection.execute(
                "SELECT * FROM shards WHERE publication = ?", (publication,)
            )
            for _, shard, rows in map(without_crc, shards):
                if shard in finished:
                    np.add.at(done, np.frombuffer(rows, "<u4"), 1)
            if int(done.sum()) < encodings:
                raise LedgerError(
                    f"The ledger {self._file.path} is an older copy: the encoded folder holds "
                    "shards that it has not counted.",
                    "Restore the newest copy, and do not publish the folder before.",
                )
            connection.execute(
                "REPLACE INTO publications VALUES (?, ?, ?, ?, ?)",
                with_crc(publication, copies, self.identity, done.data),
            )
            connection.execute("DELETE FROM shards WHERE publication = ?", (publication,))
        missing = np.maximum(copies - done.astype(np.int64), 0)
        return np.repeat(np.arange(self.images), missing)

    def _begun(
        self, connection: sqlite3.Connection, publication: str
    ) -> tuple[int, NDArray[np.uint32]]:
        """The requested copies, and (N,) the number of finished ones of each image."""
        rows = connection.execute("SELECT * FROM publications WHERE id = ?", (publication,))
        for _, copies, source, done in map(without_crc, rows.fetchall()):
            if source == self.identity:
                return copies, np.frombuffer(done or bytes(4 * self.images), "<u4").copy()
        raise LedgerError(
            "This ledger did not see the encoded folder begun with these images.",
            "Give the same source and the same ledger, or encrypt into a new folder.",
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the path of the ledger, not the counts."""
        self._file.refresh()
        where = self._file.path, self._file.name, self._file.seen
        return _reopened, (*where, self._hashes, self.limit, self._rate, self.loss_limit)

    @property
    def identity(self) -> bytes:
        """A hash that is equal for the same images in the same order, in the same ledger."""
        return hashlib.sha256(self._hashes.tobytes()).digest()


def _reopened(
    path: Path,
    name: str,
    seen: int,
    hashes: NDArray[np.bytes_],
    limit: int | None,
    rate: float,
    loss_limit: LossLimit | None,
) -> LedgerAccount:
    file = LedgerFile(path)
    if file.name != name:
        raise LedgerError(
            f"{path} is another ledger than the one that these images are counted in.",
            "Encrypt on the machine where the ledger lies, or on one that shares the file.",
        )
    if file.seen < seen:
        raise LedgerError(
            f"{path} is an older copy of the ledger that these images are counted in.",
            "Restore the newest copy: this one counts too little.",
        )
    return LedgerAccount(file, hashes, limit, rate, loss_limit)


def rows_together(entries: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) numbers from 0, equal for rows with a common entry in ``entries`` (N, w).

    Empty places are -1. A row without an entry is counted alone.
    """
    rows, _ = np.nonzero(entries >= 0)
    return connected_ids(rows, entries[entries >= 0], len(entries))


def greatest(totals: NDArray[Scalar], entries: NDArray[np.generic]) -> NDArray[Scalar]:
    """(N,) the largest of ``totals`` (M,) among the ``entries`` of each row; 0 if it has none.

    ``entries`` are (N,), or (N, w) padded with -1.
    """
    # -1 is the index of the last element, a 0.
    known = totals if entries.ndim == 1 else np.append(totals, totals.dtype.type(0))
    found: NDArray[Scalar] = known[entries]
    return found if entries.ndim == 1 else found.max(axis=1)

"""The ledger: how often each private image has gone out, over all runs of all programs.

Every attack on InstaHide gains with every encoding of an image (Carlini et al., arXiv:2011.05315),
and an encoding that is out cannot be taken back. So the count of an image is kept on disk under a
salted hash of its pixels, wherever the image comes from, and it is there before the encoding is.
"""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.identity import image_hashes
from instahide.encodings.ledger_file import LedgerFile
from instahide.encodings.ledger_schema import create, with_crc, without_crc
from instahide.encryption.exposure import Exposure, fitting, require_limit
from instahide.encryption.guarantee import loss_rate
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.images import ImageTable


def default_ledger() -> Path:
    """``$INSTAHIDE_LEDGER``, or `ledger.sqlite` in the user's folder of lasting state."""
    import platformdirs

    chosen = os.environ.get("INSTAHIDE_LEDGER")
    return Path(chosen) if chosen else platformdirs.user_state_path("instahide") / "ledger.sqlite"


@dataclass(frozen=True, eq=False)
class Totals:
    """What a ledger says of M different images.

    Attributes:
        counts: (M,) encodings that each image went into.
        squares: (M,) sums of its squared coefficients in them.
        losses: (M,) mu^2 of each image by its noise (`encryption/guarantee.py`); infinite where it
            went out without.
    """

    counts: NDArray[np.int64]
    squares: NDArray[np.float64]
    losses: NDArray[np.float64]


class Ledger:
    """Counts of private images in one file. Safe between threads and between processes.

    As a context it closes itself. Open it with `Ledger.open`.
    """

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    @classmethod
    def open(cls, path: Path | None = None) -> Ledger:
        """The ledger at ``path`` or at `default_ledger`, made if there is none.

        Raises:
            InstaHideError: it is damaged, of another version, or cannot be written.
        """
        path = path or default_ledger()
        if not path.exists():
            create(path)
        return cls(LedgerFile(path))

    def account(
        self,
        images: ImageTable,
        *,
        limit: int | None = None,
        scheme: Scheme | None = None,
        progress: bool = False,
    ) -> Account:
        """What counts the rows of ``images``; all of them are hashed for it.

        Args:
            images: private images; those not known yet are entered.
            limit: encodings that an image may go into, at most, all earlier ones included.
            scheme: that encrypts these very rows, under their normalisation: what its noise
                guarantees is then kept. Without it images go out without a guarantee.
            progress: show a bar.

        Raises:
            InstaHideError: a limit below 1, or a ledger that cannot be used.
        """
        hashes = image_hashes(images, self._file.salt, progress=progress)
        rate = math.inf if scheme is None else loss_rate(scheme, images.shape, images.std)
        return Account(self._file, self._file.enter(hashes), limit, rate)

    def totals(self, images: ImageTable | None = None, *, progress: bool = False) -> Totals:
        """Of every image that the ledger knows, or of the different ones among ``images``.

        Nothing is entered: an image that is not known has gone out in no encoding.

        Raises:
            InstaHideError: a ledger that cannot be used.
        """
        if images is None:
            self._file.refresh()
            file = self._file
            return Totals(file.counts.copy(), file.squares.copy(), file.losses.copy())
        numbers = self._file.numbers(image_hashes(images, self._file.salt, progress=progress))
        numbers = np.unique(numbers)
        known = numbers[numbers < len(self._file.counts)]
        unknown = np.zeros(len(numbers) - len(known), np.int64)
        return Totals(
            np.concatenate([self._file.counts[known], unknown]),
            np.concatenate([self._file.squares[known], unknown]),
            np.concatenate([self._file.losses[known], unknown]),
        )

    def close(self) -> None:
        """Let go of the file; accounts cannot be used any more.

        Raises:
            InstaHideError: the file cannot be written.
        """
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Account(Exposure):
    """The rows of one data set in a ledger. Rows of the same pixels share one count.

    What `take` counts is in the file when it returns: whatever is killed then, it stays counted.
    Power cuts are another matter: before encodings leave the machine's memory, `sync`. The limit
    holds over all processes together.
    A pickled copy counts in the same ledger, which must be there on its machine.
    """

    def __init__(
        self, file: LedgerFile, entries: NDArray[np.integer], limit: int | None, rate: float
    ) -> None:
        self.images = len(entries)
        require_limit(limit)
        self.limit = limit
        self._file = file
        #: (N,) numbers of the images in the ledger, which never change. Every take looks some up
        #: all over the place, and half the bytes stay in the cache: that is six times as fast.
        self._entries = entries.astype(np.uint32)
        #: What a squared coefficient of 1 costs, as `guarantee.loss_rate` has it.
        self._rate = rate

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) encodings that each image went into, counted by anyone until now."""
        self._file.refresh()
        return self._file.counts[self._entries]

    @property
    def squares(self) -> NDArray[np.float64]:
        """(N,) sums of its squared coefficients in them."""
        self._file.refresh()
        return self._file.squares[self._entries]

    @property
    def losses(self) -> NDArray[np.float64]:
        """(N,) mu^2 of each image, as in `Totals`."""
        self._file.refresh()
        return self._file.losses[self._entries]

    def spent(self) -> NDArray[np.bool] | None:
        """(N,) which images are at their limit; None where no image is."""
        if self.limit is None:
            return None
        self._file.refresh()
        full = self._file.counts >= self.limit
        spent = full[self._entries] if full.any() else full
        return spent if spent.any() else None

    def take(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> int:
        """As `Exposure.take`; in the ledger's file when it returns.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        entries = self._entries[rows]
        with self._file.changing():
            taken = len(rows)
            if self.limit is not None:
                self._file.catch_up()
                taken = fitting(entries.astype(np.int64), self._file.counts, self.limit)
            if taken:
                squares = np.square(coefficients[:taken])
                self._file.add(entries[:taken].reshape(-1), squares.reshape(-1), self._rate)
        return taken

    def sync(self) -> None:
        """Wait until no power cut can undo what was counted and noted.

        To be called before encodings are written where somebody may see them.

        Raises:
            InstaHideError: the disk fails.
        """
        self._file.sync()

    def fold(self) -> None:
        """Leave no trace in the file of which images were counted together.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        self._file.fold()

    def begin(self, publication: str, copies: int) -> None:
        """Remember an encoded folder that is to hold ``copies`` encodings of each image: none yet.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        with self._file.changing() as connection:
            connection.execute(
                "REPLACE INTO publications VALUES (?, ?, ?, ?, ?)",
                with_crc(publication, copies, self._source(), b""),
            )

    def pending(self, publication: str, shards: Mapping[str, NDArray[np.int64]]) -> None:
        """Remember, before any of the files ``shards`` is written, which rows (n,) each encrypts.

        Raises:
            InstaHideError: the ledger cannot be written.
        """
        notes = [
            with_crc(publication, shard, np.sort(rows.astype("<u4")).data)
            for shard, rows in shards.items()
        ]
        with self._file.changing() as connection:
            connection.executemany("REPLACE INTO shards VALUES (?, ?, ?, ?)", notes)

    def remaining(self, publication: str, finished: Container[str]) -> NDArray[np.int64]:
        """Rows still to be encrypted, sorted, each as often as copies are missing.

        Pending shards are settled: those in ``finished`` are done, the others will never appear.

        Raises:
            InstaHideError: the folder was begun with another ledger or with other images.
        """
        with self._file.changing() as connection:
            copies, done = self._begun(connection, publication)
            shards = connection.execute(
                "SELECT * FROM shards WHERE publication = ?", (publication,)
            )
            for _, shard, rows in map(without_crc, shards):
                if shard in finished:
                    np.add.at(done, np.frombuffer(rows, "<u4"), 1)
            connection.execute(
                "REPLACE INTO publications VALUES (?, ?, ?, ?, ?)",
                with_crc(publication, copies, self._source(), done.data),
            )
            connection.execute("DELETE FROM shards WHERE publication = ?", (publication,))
        missing = np.maximum(copies - done.astype(np.int64), 0)
        return np.repeat(np.arange(self.images), missing)

    def _begun(
        self, connection: sqlite3.Connection, publication: str
    ) -> tuple[int, NDArray[np.uint32]]:
        """How many copies there are to be, and (N,) how many of each image are done."""
        rows = connection.execute("SELECT * FROM publications WHERE id = ?", (publication,))
        for _, copies, source, done in map(without_crc, rows.fetchall()):
            if source == self._source():
                return copies, np.frombuffer(done or bytes(4 * self.images), "<u4").copy()
        raise InstaHideError(
            "This ledger did not see the encoded folder begun with these images.",
            "Give the same source and the same ledger, or encrypt into a new folder.",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """The place in the ledger, not the counts."""
        where = self._file.path.absolute(), self._file.name
        return _reopened, (*where, self._entries, self.limit, self._rate)

    def _source(self) -> bytes:
        """What the same images in the same order give again."""
        return hashlib.sha256(self._entries.astype("<u4").tobytes()).digest()


def _reopened(
    path: Path, name: str, entries: NDArray[np.uint32], limit: int | None, rate: float
) -> Account:
    file = LedgerFile(path)
    if file.name != name:
        raise InstaHideError(
            f"{path} is another ledger than the one that these images are counted in.",
            "Encrypt on the machine where the ledger lies, or on one that shares the file.",
        )
    return Account(file, entries, limit, rate)

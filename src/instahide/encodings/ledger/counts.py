"""The counts of a ledger, summed from its database."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.ledger.schema import Row, without_crc

#: If fewer than one image in so many was counted, its count is updated singly.
ONE_BY_ONE = 4


class LedgerCounts:
    """The counts that were read through a connection to a ledger.

    Args:
        connection: connection to the database.

    Attributes:
        name: random name of the ledger.
        salt: salt of its hashes.
        counts: (M,) exposure of each image, up to the last take that was read.
        squares: (M,) sums of the squared coefficients of each image.
        losses: (M,) sums of the squared coefficients, each times the rate of its take.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.counts: NDArray[np.int64] = np.empty(0, np.int64)
        self.squares: NDArray[np.float64] = np.empty(0, np.float64)
        self.losses: NDArray[np.float64] = np.empty(0, np.float64)
        #: The last take that is in the arrays; None if the arrays must be read again.
        self._seen: int | None = None
        self.salt, self.name, _, _ = self._state()

    def catch_up(self) -> None:
        """Bring `counts`, `squares` and `losses` up to date, in one transaction.

        Raises:
            ValueError: the database is inconsistent.
        """
        _, _, images, folded = self._state()
        if self._seen is None or folded > self._seen or images != len(self.counts):
            self._load(images)
            self._seen = folded
        seen = self._seen
        takes = self._connection.execute("SELECT * FROM takes WHERE id > ? ORDER BY id", (seen,))
        for rate, together in groupby(_complete(takes, seen), itemgetter(3)):
            for part in self._split(together):
                self._apply(part, rate)

    @property
    def seen(self) -> int:
        """The number of the last take that was read; 0 if none was."""
        return self._seen or 0

    def holds(self, other: LedgerCounts) -> bool:
        """Whether these are counts of the same ledger and not older than those of ``other``."""
        known = len(other.counts)
        return (
            (self.name, self.salt) == (other.name, other.salt)
            and self.seen >= other.seen
            and len(self.counts) >= known
            # After an error the arrays may be ahead of the file.
            and (other._seen is None or bool((self.counts[:known] >= other.counts).all()))
        )

    def _state(self) -> tuple[bytes, str, int, int]:
        """Salt, name, number of images, and the last take that is in the totals."""
        rows = self._connection.execute("SELECT * FROM state").fetchall()
        salt, name, images, folded = without_crc(rows[0])
        return salt, name, images, folded

    def _last(self) -> int:
        """The last take, in the totals or in the journal."""
        last = "SELECT coalesce((SELECT max(id) FROM takes), folded) FROM state"
        (number,) = self._connection.execute(last).fetchone()
        return int(number)

    def _load(self, images: int) -> None:
        rows = self._connection.execute("SELECT * FROM totals ORDER BY first")
        totals = [without_crc(row) for row in rows]
        counts = [np.frombuffer(row[1], "<u4") for row in totals]
        squares = [np.frombuffer(row[2], "<f8") for row in totals]
        losses = [
            np.frombuffer(row[3], "<f8") if row[3] else without_noise(part)
            for row, part in zip(totals, counts, strict=True)
        ]
        self.counts = np.concatenate([np.empty(0, np.int64), *counts])
        self.squares = np.concatenate([np.empty(0, np.float64), *squares])
        self.losses = np.concatenate([np.empty(0, np.float64), *losses])
        if not len(self.counts) == len(self.squares) == len(self.losses) == images:
            raise ValueError("Not a count and two sums for each image.")
        if not ((self.squares >= 0).all() and (self.losses >= 0).all()):
            raise ValueError("A sum of squares is below zero, or no number.")

    def _split(self, takes: Iterable[Row]) -> Iterator[list[Row]]:
        """``takes`` in parts that are efficient to add up together."""
        part: list[Row] = []
        size = 0
        for take in takes:
            part.append(take)
            size += len(take[1]) // 4
            if size >= len(self.counts):
                yield part
                part, size = [], 0
        if part:
            yield part

    def _apply(self, takes: list[Row], rate: float) -> None:
        """Add up ``takes``, rows of the journal of one ``rate``."""
        numbers = np.frombuffer(b"".join(take[1] for take in takes), "<u4").astype(np.intp)
        squares = np.frombuffer(b"".join(take[2] for take in takes), "<f4").astype(np.float64)
        if numbers.max(initial=0) >= len(self.counts) or len(numbers) != len(squares):
            raise ValueError("A take of images that are not there.")
        sum_counts(self.counts, numbers, None)
        sum_counts(self.squares, numbers, squares)
        if rate < math.inf:
            sum_counts(self.losses, numbers, rate * squares)
        else:
            self.losses[numbers] = math.inf
        self._seen = takes[-1][0]


def without_noise(counts: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The losses of images that were only encrypted without noise; the file does not store them."""
    return np.where(counts > 0, math.inf, 0.0)


def sum_counts(
    totals: NDArray[np.int64] | NDArray[np.float64],
    numbers: NDArray[np.intp],
    values: NDArray[np.float64] | None,
) -> None:
    """Add ``values``, or 1, to ``totals[numbers]``; a number may occur more than once."""
    if ONE_BY_ONE * len(numbers) > len(totals):
        totals += np.bincount(numbers, values, minlength=len(totals))
    else:
        np.add.at(totals, numbers, 1 if values is None else values)


def _complete(takes: Iterable[Row], seen: int) -> Iterator[Row]:
    """The values of the rows ``takes``, after a check that no take is missing after ``seen``."""
    for number, row in enumerate(takes, seen + 1):
        values = without_crc(row)
        if values[0] != number:
            raise ValueError("A take is missing.")
        yield values

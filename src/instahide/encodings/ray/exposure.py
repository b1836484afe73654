"""Counting for encoders on other machines, where only one process writes the ledger.

An encoder sends the images of a block and their coefficients, sorted by image. It does not send
which images are mixed with each other.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.ledger.account import LedgerAccount
from instahide.encryption.exposure import Exposure, within_limit
from instahide.encryption.sampling._duplicates_numba import has_repeats, merge_repeats


class Counting(Protocol):
    """The interface of the counting process for encoders."""

    def counts(self) -> NDArray[np.int64]:
        """(N,) exposure of each image so far."""
        ...

    def pictures(self) -> NDArray[np.int64]:
        """(N,) numbers below N, equal for images that are counted together."""
        ...

    def count(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> bool:
        """Count all images ``rows`` (m,), which may repeat, or none of them.

        Returns:
            Whether they were counted. They are not if an image would exceed its limit.
        """
        ...


class Counter:
    """Counts in a ledger for remote encoders; counts survive a power cut."""

    def __init__(self, account: LedgerAccount) -> None:
        self._account = account

    def counts(self) -> NDArray[np.int64]:
        """As `Counting.counts`."""
        return self._account.counts

    def pictures(self) -> NDArray[np.int64]:
        """As `Counting.pictures`."""
        return self._account.pictures()

    def count(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> bool:
        """As `Counting.count`."""
        # Each as a mix of one image: a picture occurs once for each encoding that contains it.
        if not self._account.take_all(rows[:, None], coefficients[:, None]):
            return False
        self._account.sync()
        return True


class RemoteExposure(Exposure):
    """The exposure of images that another process counts for all encoders together.

    Args:
        counting: the counting process.
        images: number of private images.
        limit: largest exposure of an image, over all encoders.

    With a limit, ``counts`` are those last received; without one, they are zeros. ``squares`` are
    always zeros.
    """

    def __init__(self, counting: Counting, images: int, limit: int | None) -> None:
        super().__init__(images, limit=limit)
        self._counting = counting
        self.group(counting.pictures())
        self._see()

    def record(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> int:
        """As `Exposure.record`; may leave out more mixes than the limit alone requires."""
        pictures, weights = self._pictures(rows), np.array(coefficients, np.float32)
        if has_repeats(pictures):
            pictures = pictures.copy()
            merge_repeats(pictures, weights)
        taken = self._fitting(pictures)
        while taken and not self._count(rows[:taken], pictures[:taken], weights[:taken]):
            self._see()
            taken = min(taken // 2, self._fitting(pictures))
        return taken

    def _count(
        self,
        rows: NDArray[np.int64],
        pictures: NDArray[np.int64],
        weights: NDArray[np.float32],
    ) -> bool:
        once = pictures >= 0
        # The rows themselves: of rows that are connected by others, each may count for more.
        flat, each = rows[once], weights[once]
        order = np.argsort(flat)
        counted = self._counting.count(flat[order], each[order])
        if counted and self.limit is not None:
            np.add.at(self._counts, pictures[once], 1)
        return counted

    def _fitting(self, rows: NDArray[np.int64]) -> int:
        return len(rows) if self.limit is None else within_limit(rows, self._counts, self.limit)

    def _see(self) -> None:
        if self.limit is not None:
            # A copy, because arrays from another process are read-only.
            self._counts = self._counting.counts().copy()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the reference to the counting process, not the counts."""
        return RemoteExposure, (self._counting, self.images, self.limit)

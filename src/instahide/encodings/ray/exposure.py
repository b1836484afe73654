"""Counting for encoders on other machines, where only one process writes the ledger.

An encoder sends the images of a block and their coefficients, sorted by image. It does not send
which images are mixed with each other.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.ledger.account import LedgerAccount
from instahide.encryption.exposure import Exposure, once_each
from instahide.encryption.guarantees.loss_limit import LossLimit


class Counting(Protocol):
    """The interface of the counting process for encoders."""

    def counts(self) -> NDArray[np.int64]:
        """(N,) exposure of each image so far."""
        ...

    def losses(self) -> NDArray[np.float64]:
        """(N,) privacy loss (mu^2) of each image so far."""
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

    def losses(self) -> NDArray[np.float64]:
        """As `Counting.losses`."""
        return self._account.losses

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
        loss_limit: largest loss of an image, over all encoders.

    With a limit, ``counts`` are those last received; without one, they are zeros. ``squares`` are
    always zeros.
    """

    def __init__(
        self,
        counting: Counting,
        images: int,
        limit: int | None,
        loss_limit: LossLimit | None = None,
    ) -> None:
        super().__init__(images, limit=limit, loss_limit=loss_limit)
        self._counting = counting
        #: (N,) losses that were last received.
        self._received = np.zeros(images)
        self.group(counting.pictures())
        self._see()

    def record(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> int:
        """As `Exposure.record`; may leave out more mixes than the limit alone requires."""
        pictures, weights = once_each(self._pictures(rows), coefficients)
        taken = self._within(pictures, weights, self._counts, self._received)
        while taken and not self._count(rows[:taken], pictures[:taken], weights[:taken]):
            self._see()
            fitting = self._within(pictures, weights, self._counts, self._received)
            taken = min(taken // 2, fitting)
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
        if counted and self.loss_limit is not None:
            added = np.square(each, dtype=np.float64) * self.loss_limit.rate
            np.add.at(self._received, self._pictures(flat), added)
        return counted

    def _losses(self, squares: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._received

    def _see(self) -> None:
        # Copies, because arrays from another process are read-only.
        if self.limit is not None:
            self._counts = self._counting.counts().copy()
        if self.loss_limit is not None:
            self._received = self._counting.losses().copy()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the reference to the counting process, not the counts."""
        return RemoteExposure, (self._counting, self.images, self.limit, self.loss_limit)

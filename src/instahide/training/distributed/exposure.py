"""How often images have gone out that several processes encrypt, each under keys of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import Hashes
from instahide.encryption.exposure import Exposure, gathered

#: Gives the sum over all processes of an array (N,) that each of them brings.
Total = Callable[[NDArray[np.int64]], NDArray[np.int64]]


class DistributedExposure(Exposure):
    """Counts of all processes, as far as this one has heard: `settle` asks the others.

    A limit holds for all of them together. An image that several processes have in the same epoch,
    as a `DistributedSampler` gives some twice to fill the last batch, has a share of what is left
    of its limit in each.

    Args:
        images: how many there are; the same ones in every process.
        total: sums over processes; all of them must call it at once.
        limit: encodings that an image may go into, at most.
        counts: (N,) encodings that each image went into before.
    """

    def __init__(
        self,
        images: int,
        total: Total,
        *,
        limit: int | None = None,
        counts: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(images, limit=limit)
        self._total = total
        self._settled = np.zeros(images, np.int64) if counts is None else counts
        # What the limit is held against, and what that was when the others were last asked.
        self._start = self._counts.copy()

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) encodings that each image went into."""
        return self._each(self._settled + (self._counts - self._start))

    def identify(self, hashes: Hashes) -> NDArray[np.int64]:
        """As `Exposure.identify`, by the hashes of all processes; all of them do so at once."""
        known: NDArray[np.bool] = (hashes != 0).any(axis=1)
        # As 32-bit parts, of which several processes may bring the same ones: their sum fits.
        parts = np.ascontiguousarray(hashes).view("<u4")
        brought = np.concatenate([known[None], parts.T]).astype(np.int64)
        holders, *sums = self._total(brought.reshape(-1)).reshape(brought.shape)
        joint = np.stack(sums, axis=1) // np.maximum(holders, 1)[:, None]
        words = np.ascontiguousarray(joint.astype("<u4")).view("<u8")
        return super().identify(words.astype(np.uint64))

    def _count_together(self, ids: NDArray[np.int64]) -> None:
        made = self._counts - self._start
        self._counts = self._settled
        super()._count_together(ids)
        self._settled = self._counts
        first = np.arange(self.images) if self._first is None else self._first
        self._counts = gathered(made, first)
        # A limit is held against what `begin_epoch` sets.
        self._start = np.zeros_like(made)

    def begin_epoch(self, rows: NDArray[np.int64]) -> None:
        """Begin an epoch with the images ``rows`` (n,); all processes do so at once."""
        # A forked process that asks the others is one of them.
        self._process = os.getpid()
        holders = np.zeros(self.images, np.int64)
        holders[self._pictures(rows)] = 1
        holders = np.maximum(self._total(holders), 1)
        self.settle()
        if self.limit is not None:
            left = np.maximum(self.limit - self._settled, 0) // holders
            self._counts = self.limit - left
            self._start = self._counts.copy()

    def settle(self) -> None:
        """Hear what all processes have counted; all of them do so at once."""
        self._settled = self._settled + self._total(self._counts - self._start)
        self._start = self._counts.copy()

    def raise_to(self, counts: NDArray[np.int64]) -> None:
        """Count no picture below ``counts`` (N,), as `by_picture` gives them."""
        counts = counts if self._first is None else gathered(counts, self._first)
        self._settled = self._settled + np.maximum(counts - self.by_picture, 0)

    def add(self, counts: NDArray[np.int64]) -> None:
        """Count encodings (N,) that were made elsewhere, as `by_picture` gives them."""
        counts = counts if self._first is None else gathered(counts, self._first)
        self._settled = self._settled + counts

    def __reduce__(self) -> tuple[Any, ...]:
        """With its counts: for a process that goes on in place of this one."""
        return _joint, (self.images, self._total, self.limit, self.by_picture)


def _joint(
    images: int, total: Total, limit: int | None, counts: NDArray[np.int64]
) -> DistributedExposure:
    return DistributedExposure(images, total, limit=limit, counts=counts)

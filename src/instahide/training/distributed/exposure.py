"""Exposure of images that several processes encrypt, each under its own keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import Hashes, duplicate_ids
from instahide.data.duplicates.group_hash import Groups, group_hashes
from instahide.encryption.exposure import Exposure, gathered

#: Returns the sum over all processes of an array (N,) of each process.
Total = Callable[[NDArray[np.int64]], NDArray[np.int64]]


class DistributedExposure(Exposure):
    """Counts the encodings of all processes; `settle` exchanges the counts.

    A limit holds for all processes together. If several processes have the same image in an epoch
    (a `DistributedSampler` repeats some to fill the last batch), each may use an equal part of what
    is left of its limit.

    Args:
        images: number of images, which are the same in every process.
        total: returns sums over processes; all processes must call it together.
        limit: largest number of encodings of an image; None for no limit.
        counts: (N,) earlier encodings of each image.
        groups: the groups of the images, as for `Exposure`; the same in every process.
    """

    def __init__(
        self,
        images: int,
        total: Total,
        *,
        limit: int | None = None,
        counts: NDArray[np.int64] | None = None,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(images, limit=limit)
        self._total = total
        self._settled = np.zeros(images, np.int64) if counts is None else counts
        # The counts that the limit applies to, as they were at the last exchange.
        self._start = self._counts.copy()
        if groups is not None:
            # Without an exchange: the processes know the same groups.
            self.group(duplicate_ids(group_hashes(groups, images)))

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) encodings that each image went into."""
        return self._each(self._settled + (self._counts - self._start))

    def identify(self, hashes: Hashes) -> NDArray[np.int64]:
        """As `Exposure.identify`, with the hashes of all processes, which must call it together."""
        return super().identify(self.joint_hashes(hashes))

    def joint_hashes(self, hashes: Hashes) -> Hashes:
        """(N, 2) the hashes that any process knows; all processes must call it together."""
        known: NDArray[np.bool] = (hashes != 0).any(axis=1)
        # As 32-bit parts: sums of equal parts from several processes then fit.
        parts = np.ascontiguousarray(hashes).view("<u4")
        brought = np.concatenate([known[None], parts.T]).astype(np.int64)
        holders, *sums = self._total(brought.reshape(-1)).reshape(brought.shape)
        joint = np.stack(sums, axis=1) // np.maximum(holders, 1)[:, None]
        words = np.ascontiguousarray(joint.astype("<u4")).view("<u8")
        return words.astype(np.uint64)

    def _count_together(self, ids: NDArray[np.int64]) -> None:
        made = self._counts - self._start
        self._counts = self._settled
        super()._count_together(ids)
        self._settled = self._counts
        first = np.arange(self.images) if self._first is None else self._first
        self._counts = gathered(made, first)
        # `begin_epoch` sets the counts that the limit applies to.
        self._start = np.zeros_like(made)

    def begin_epoch(self, rows: NDArray[np.int64]) -> None:
        """Begin an epoch with the images ``rows`` (n,); all processes must call it together."""
        # A forked process that takes part in the exchange counts as its own process.
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
        """Exchange the counts of all processes, which must call it together."""
        self._settled = self._settled + self._total(self._counts - self._start)
        self._start = self._counts.copy()

    def raise_to(self, counts: NDArray[np.int64]) -> None:
        """Raise the counts of all pictures to at least ``counts`` (N,), from `by_picture`."""
        counts = counts if self._first is None else gathered(counts, self._first)
        self._settled = self._settled + np.maximum(counts - self.by_picture, 0)

    def add(self, counts: NDArray[np.int64]) -> None:
        """Add the counts (N,) of another run, from its `by_picture`."""
        counts = counts if self._first is None else gathered(counts, self._first)
        self._settled = self._settled + counts

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it with its counts, for a process that replaces this one."""
        kind = type(self)
        return _joint, (kind, self.images, self._total, self.limit, self.by_picture, self._first)


def _joint(
    kind: type[DistributedExposure],
    images: int,
    total: Total,
    limit: int | None,
    counts: NDArray[np.int64],
    first: NDArray[np.int64] | None,
) -> DistributedExposure:
    exposure = kind(images, total, limit=limit, counts=counts)
    if first is not None:
        exposure.group(first)
    return exposure

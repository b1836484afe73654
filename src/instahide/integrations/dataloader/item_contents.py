"""Exposure counted by position in a data set, with a check of the images at these positions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import Hashes
from instahide.errors import IntegrationError
from instahide.integrations.dataloader.duplicate_scan import ItemScan
from instahide.training.distributed.exposure import DistributedExposure


class ItemContents(NamedTuple):
    """The images at some positions of a data set, as one digest of all of them.

    Checkpoints hold it. A digest of each image would let readers of a checkpoint test whether an
    image that they have was trained on. This digest only confirms a guess of all images and of
    their order. The salt is not secret: it prevents that digests are computed in advance, and that
    checkpoints of two runs are seen to have the same images.

    Attributes:
        known: (N,) whether the image at each position is in the digest.
        salt: random text that the digest depends on.
        digest: hexadecimal digest.
    """

    known: NDArray[np.bool]
    salt: str
    digest: str

    @classmethod
    def of(cls, hashes: Hashes, salt: str | None = None) -> Self:
        """The digest of all images whose hash (N, 2) is not zero."""
        known: NDArray[np.bool] = (hashes != 0).any(axis=1)
        salt = salt or os.urandom(16).hex()
        return cls(known, salt, _digest(hashes, known, salt))

    def match(self, hashes: Hashes) -> bool:
        """Whether ``hashes`` (N, 2) are those of the same images at the same positions."""
        return _digest(hashes, self.known, self.salt) == self.digest


class PositionExposure(DistributedExposure):
    """A `DistributedExposure` that refuses other images at the positions that it counted.

    Arguments are as for `DistributedExposure`.

    Attributes:
        contents: the images that were counted; two entries or more after another run's counts were
            added, until the next epoch begins.
        shared: whether several loaders give these items, so that while one of them is in an epoch,
            another may give any item to any process.
    """

    contents: Sequence[ItemContents] = ()
    shared: bool = False

    def join(self, other: PositionExposure) -> None:
        """Add the counts of ``other``, which counted the same items until now.

        All processes must call it together.
        """
        other.settle()
        self.add(other.by_picture)
        self.expect(other.contents)

    def begin_epoch(self, rows: NDArray[np.int64]) -> None:
        """As `DistributedExposure.begin_epoch`; each process may use an equal part if `shared`."""
        super().begin_epoch(np.arange(self.images) if self.shared else rows)

    def expect(self, contents: Iterable[ItemContents]) -> None:
        """Require the images of another run, whose counts were added."""
        held = {each.digest for each in self.contents}
        others = (each for each in contents if each.digest not in held)
        self.contents = [*self.contents, *others]

    def require_same(self, scan: ItemScan) -> None:
        """Check that the scanned items are those that were counted; before an epoch.

        All processes must call it together. Nothing is checked if the items change from one fetch
        to the next, because their images are then unknown.

        Raises:
            IntegrationError: they are others.
        """
        hashes = self._complete(scan)
        if self._anywhere(scan.changing or _disagrees(scan.hashes[:, 0], hashes)):
            return
        if all(each.match(hashes) for each in self.contents):
            self._remember(hashes)
        elif np.array_equal(self.joint_hashes(scan.repeated().hashes[:, 0]), hashes):
            raise _other_items()
        else:
            scan.changing = True
            self.contents = []

    def _complete(self, scan: ItemScan) -> Hashes:
        """(N, 2) hashes of all processes, after a scan of counted items that none has scanned."""
        hashes = self.joint_hashes(scan.hashes[:, 0])
        missing = _union(self.contents, self.images) & ~hashes.any(axis=1)
        if not missing.any():
            return hashes
        scan.see(np.flatnonzero(missing))
        return self.joint_hashes(scan.hashes[:, 0])

    def _remember(self, hashes: Hashes) -> None:
        known = hashes.any(axis=1)
        if len(self.contents) == 1 and np.array_equal(self.contents[0].known, known):
            return
        salt = self.contents[0].salt if self.contents else None
        self.contents = [ItemContents.of(hashes, salt)] if known.any() else []

    def _anywhere(self, decision: bool) -> bool:
        """Whether ``decision`` is true in any process."""
        return bool(self._total(np.array([decision], np.int64))[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """As `DistributedExposure`, with the contents and whether it is shared."""
        return *super().__reduce__(), {"contents": self.contents, "shared": self.shared}


def _digest(hashes: Hashes, known: NDArray[np.bool], salt: str) -> str:
    whole = hashlib.sha256(salt.encode())
    whole.update(np.packbits(known).tobytes())
    whole.update(hashes[known].astype("<u8").tobytes())
    return whole.hexdigest()


def _union(contents: Sequence[ItemContents], images: int) -> NDArray[np.bool]:
    known = np.zeros(images, bool)
    for each in contents:
        known |= each.known
    return known


def _disagrees(own: Hashes, joint: Hashes) -> bool:
    """Whether another process has another hash of an item of this one."""
    known = own.any(axis=1)
    return not np.array_equal(own[known], joint[known])


def _other_items() -> IntegrationError:
    return IntegrationError(
        "The data set does not hold the same images at the same positions as when they were "
        "counted (another random split or order, or other transforms), so it is unknown which of "
        "them have been encrypted.",
        "Give a random split a fixed seed; or name a ledger=, which counts images by their "
        "content, and start a new run.",
    )

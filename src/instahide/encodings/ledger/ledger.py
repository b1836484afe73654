"""The ledger: how often each private image has gone out, over all runs of all programs.

Every attack on InstaHide gains with every encoding of an image (Carlini et al., arXiv:2011.05315),
and an encoding that is out cannot be taken back. So the count of an image is kept on disk under
salted hashes of its pixels and of the image that it was resized or cropped from, whatever its file
name, format or size, and it is there before the encoding is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageSource, ImageTable
from instahide.data.duplicates.content_hash import Hashes
from instahide.data.duplicates.image_view import image_view
from instahide.data.image_source import keys_of
from instahide.data.items import MapDataset
from instahide.encodings.ledger.account import LedgerAccount, greatest
from instahide.encodings.ledger.file_watch import resolve_path
from instahide.encodings.ledger.image_hash import salted_keys
from instahide.encodings.ledger.image_names import primary
from instahide.encodings.ledger.schema import create
from instahide.encodings.ledger.store import LedgerFile
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.scheme import Scheme


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
        losses: (M,) mu^2 of each image by its noise (`encryption/privacy.py`); infinite where it
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
        #: The table that was looked up last, and its hashes: it is the same one in one command.
        self._hashed: tuple[ImageTable, NDArray[np.bytes_]] | None = None

    @classmethod
    def open(cls, path: Path | None = None) -> Ledger:
        """The ledger at ``path`` or at `default_ledger`, made if there is none.

        Raises:
            InstaHideError: it is damaged, of another version, or cannot be written; or it has
                another name by a hard link or a mount.
        """
        path = path or default_ledger()
        real = resolve_path(path)
        if not real.exists():
            create(real)
        return cls(LedgerFile(path))

    def account(
        self,
        images: ImageSource | MapDataset,
        *,
        limit: int | None = None,
        scheme: Scheme | None = None,
        image: object = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        progress: bool = False,
    ) -> LedgerAccount:
        """What counts the rows of ``images``; all of them are hashed for it.

        Of a data set every item is fetched once, with all random generators in one state before
        each, so that random transforms do the same to it in every run. An image is the same one as
        long as these transforms are the same. To be independent of them, give the same data set
        without its random transforms: items are counted by their number.

        Args:
            images: private images, or a map-style data set of them; those not known yet are
                entered.
            limit: encodings that an image may go into, at most, all earlier ones included.
            scheme: that encrypts these very rows, under their normalization: what its noise
                guarantees is then kept. Without it images go out without a guarantee.
            image: where an item of a data set holds its image: a key, an index, or a tuple of
                these; by default the first of a tuple, or what is called ``image``.
            mean: what a data set of float images was normalized by, of pixel / 255; by default what
                its transforms say. Where it is known, an image is the same one as in a table or a
                file with its pixels, and what noise guarantees can be kept.
            std: likewise.
            progress: show a bar.

        Raises:
            InstaHideError: a limit below 1, a data set that cannot be used, or a ledger that
                cannot.
        """
        if not isinstance(images, ImageSource):
            images = image_view(images, image=image, mean=mean, std=std)
        hashes = self._hashes(images, progress=progress)
        std = None if images.normalization is None else images.normalization.std
        rate = mu_squared_rate(scheme, images.shape, std) if scheme else math.inf
        return LedgerAccount(self._file, hashes, limit, rate)

    def account_of(
        self, keys: Hashes, *, limit: int | None = None, rate: float = math.inf
    ) -> LedgerAccount:
        """What counts images of which only hashes are at hand, as of a wrapped data set.

        Args:
            keys: (N, m, 2), as `data.image_source.keys_of` gives them: for each image the hash of
                its picture, and those of its sources where they are known.
            limit: as for `account`.
            rate: the squared mu of a coefficient of 1, `privacy.mu_squared_rate`; without it,
                images are encrypted without a guarantee.

        Raises:
            InstaHideError: as `account`.
        """
        return LedgerAccount(self._file, salted_keys(keys, self._file.salt), limit, rate)

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
        hashes = self._hashes(images, progress=progress)
        _, different = np.unique(primary(hashes), return_index=True)
        entries, file = self._file.find(hashes[different]), self._file
        return Totals(
            greatest(file.counts, entries),
            greatest(file.squares, entries),
            greatest(file.losses, entries),
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

    def _hashes(self, images: ImageSource, *, progress: bool) -> NDArray[np.bytes_]:
        """(N, m) salted hashes of the rows of ``images``."""
        if self._hashed is not None and self._hashed[0] is images:
            return self._hashed[1]
        hashes = salted_keys(keys_of(images), self._file.salt, progress=progress)
        if isinstance(images, ImageTable):
            self._hashed = images, hashes
        return hashes

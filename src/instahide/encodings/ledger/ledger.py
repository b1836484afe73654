"""The ledger: the exposure of each private image over all runs of all programs.

Attacks on InstaHide improve with every encoding of an image (Carlini et al., arXiv:2011.05315), and
a published encoding cannot be withdrawn. So the count of an image is stored on disk before an
encoding exists. An image is identified by salted hashes of its pixels and of its source image,
whatever its file name, format or size.
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
from instahide.data.duplicates.content_hash import merge_ids
from instahide.data.duplicates.group_hash import Groups, group_hashes
from instahide.data.duplicates.image_view import image_view
from instahide.data.image_source import keys_of
from instahide.data.items import MapDataset
from instahide.encodings.ledger.account import LedgerAccount, greatest, rows_together
from instahide.encodings.ledger.file_watch import resolve_path
from instahide.encodings.ledger.image_hash import salted_keys
from instahide.encodings.ledger.image_names import primary
from instahide.encodings.ledger.schema import create
from instahide.encodings.ledger.store import LedgerFile
from instahide.encryption.exposure import Scalar
from instahide.encryption.guarantees.loss_limit import LossLimit
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, LedgerError


def default_ledger() -> Path:
    """``$INSTAHIDE_LEDGER``, or `ledger.sqlite` in the user's state folder.

    Raises:
        LedgerError: the variable is not an absolute path.
    """
    import platformdirs

    chosen = os.environ.get("INSTAHIDE_LEDGER")
    if not chosen:
        return platformdirs.user_state_path("instahide") / "ledger.sqlite"
    if not Path(chosen).is_absolute():
        raise LedgerError(
            f"INSTAHIDE_LEDGER is {chosen}, which means another file in each working directory, so "
            "that earlier encodings would not be counted.",
            "Set it to an absolute path, without ~.",
        )
    return Path(chosen)


@dataclass(frozen=True, eq=False)
class Totals:
    """The totals of M different images in a ledger; images of one group are one of them.

    Attributes:
        counts: (M,) exposure of each image.
        squares: (M,) sums of the squared coefficients of each image.
        losses: (M,) mu^2 of each image (`encryption/privacy.py`); infinite if one of its encodings
            has no noise.
    """

    counts: NDArray[np.int64]
    squares: NDArray[np.float64]
    losses: NDArray[np.float64]


class Ledger:
    """Counts of private images in one file. Safe between threads and between processes.

    Open it with `Ledger.open`. It is a context manager.
    """

    def __init__(self, file: LedgerFile) -> None:
        self._file = file
        #: The table that was hashed last, and its hashes; a command uses the same table again.
        self._hashed: tuple[ImageTable, NDArray[np.bytes_]] | None = None

    @classmethod
    def open(cls, path: Path | None = None) -> Ledger:
        """Open the ledger at ``path`` or at `default_ledger`; it is created if it does not exist.

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
        min_mse: float | None = None,
        scheme: Scheme | None = None,
        image: object = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        groups: Groups | None = None,
        progress: bool = False,
    ) -> LedgerAccount:
        """An account that counts the encodings of ``images``, all of which are hashed first.

        Every item of a data set is fetched once, with all random generators reset, so that random
        transforms give the same result in every run. If you change the transforms, the images count
        as new ones. To avoid this, pass the same data set without its random transforms: items are
        counted by index.

        Args:
            images: private images, or a map-style data set of them; new ones are entered.
            limit: largest exposure of an image, including all earlier encodings.
            min_mse: least mean squared error of unbiased reconstructions of an image, in squares of
                the unit range of pixels, after all encodings (`error_floor.unbiased_floor`). It
                needs ``scheme``.
            scheme: the scheme that encrypts these images under their normalization, to account for
                the privacy of its noise. Without it, encodings count as having no noise.
            image: position of the image in an item of a data set: a key, an index, or a tuple of
                these; by default the first element of a tuple, or the key ``image``.
            mean: mean of pixel / 255 that float images were normalized by; by default inferred from
                transforms. If known, an image counts as the same one as in a table or file with the
                same pixels, and the privacy of noise can be accounted for.
            std: standard deviation, likewise.
            groups: the group of each item of a data set, such as its patient: names in the order of
                the items, or a function from item number to name; an empty name for an item in no
                group. Items of one group share one count. A table has its own groups, see
                `ImageTable.grouped`.
            progress: show a bar.

        Raises:
            InstaHideError: the limit is below 1, ``min_mse`` cannot be kept, or the data set or the
                ledger cannot be used.
        """
        if groups is not None and isinstance(images, ImageTable):
            raise DataError(
                "A table has its own groups.", "Open the account for `table.grouped(names)`."
            )
        if not isinstance(images, ImageSource):
            images = image_view(images, image=image, mean=mean, std=std)
        hashes = self._hashes(images, progress=progress)
        if groups is not None:
            named = group_hashes(groups, len(images))[:, None]
            hashes = np.concatenate([hashes, salted_keys(named, self._file.salt)], axis=1)
        std = None if images.normalization is None else images.normalization.std
        rate = mu_squared_rate(scheme, images.shape, std) if scheme else math.inf
        loss_limit = None
        if min_mse is not None:
            loss_limit = LossLimit.for_min_mse(min_mse, scheme or Scheme.plain(), images.shape, std)
        return LedgerAccount(self._file, hashes, limit, rate, loss_limit)

    def totals(self, images: ImageTable | None = None, *, progress: bool = False) -> Totals:
        """Totals of all images in the ledger, or of the distinct ones among ``images``.

        Images of one group count as one.

        Nothing is entered; an unknown image has an exposure of 0.

        Raises:
            InstaHideError: the ledger cannot be used.
        """
        if images is None:
            self._file.refresh()
            file = self._file
            return Totals(file.counts.copy(), file.squares.copy(), file.losses.copy())
        hashes = self._hashes(images, progress=progress)
        _, of_row = np.unique(primary(hashes), return_inverse=True)
        entries, file = self._file.find(hashes), self._file
        return Totals(
            _most_of_each(of_row, greatest(file.counts, entries)),
            _most_of_each(of_row, greatest(file.squares, entries)),
            _most_of_each(of_row, greatest(file.losses, entries)),
        )

    def pictures(self, images: ImageTable) -> NDArray[np.int64]:
        """(N,) numbers from 0, equal for rows that an account of ``images`` counts together.

        These are rows of one picture, source or group, and rows that the ledger knows to show the
        same image. Nothing is entered.

        Raises:
            InstaHideError: the ledger cannot be used.
        """
        known = rows_together(self._file.find(self._hashes(images, progress=False)))
        return merge_ids(images.content_ids, known)

    def close(self) -> None:
        """Close the file; accounts cannot be used any more.

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


def _most_of_each(of_row: NDArray[np.int64], totals: NDArray[Scalar]) -> NDArray[Scalar]:
    """(M,) the largest of ``totals`` (N,) among the rows of each of M images."""
    most = np.zeros(int(of_row.max(initial=-1)) + 1, totals.dtype)
    np.maximum.at(most, of_row, totals)
    return most

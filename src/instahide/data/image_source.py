"""What an encoder needs of images, whether they are a table or somebody's own data set."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import (
    Hashes,
    all_unique,
    content_hashes,
    duplicate_ids,
)
from instahide.data.duplicates.repeatable_transforms import RepeatableTransforms
from instahide.data.normalization.normalization import Normalization
from instahide.data.table import GatheredRows, ImageTable
from instahide.errors import DataError


@runtime_checkable
class ImageSource(Protocol):
    """Images of one shape with labels, fetched by number and normalized by one affine map.

    The normalized value of a pixel that `rows` gives is ``pixel * scale + bias``, per channel.

    Two rows may show the same image, and a mix must hold it only once. An object may say which
    do by a further attribute, ``content_hashes`` (N, 2), as `content_hash.content_hashes` makes
    them. Without it, all rows are fetched once, one by one, before the first image is encrypted.
    """

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number."""
        ...

    @property
    def normalization(self) -> Normalization | None:
        """How pixel / 255 was normalized, which public images are as well; None if unknown."""
        ...

    @property
    def scale(self) -> NDArray[np.float32]:
        """(C,) factor from a fetched pixel to its normalized value."""
        ...

    @property
    def bias(self) -> NDArray[np.float32]:
        """(C,) normalized value of a fetched 0."""
        ...

    def rows(self, indices: NDArray[np.int64]) -> GatheredRows:
        """The images that ``indices`` (n, k) names."""
        ...


def hashes_of(images: ImageSource) -> Hashes:
    """(N, 2) hashes of the picture that each row of ``images`` shows.

    Raises:
        DataError: the images state hashes for another number of rows.
    """
    hashes = getattr(images, "content_hashes", None)
    if hashes is None:
        with RepeatableTransforms(images) as generators:
            found = [_hash_of_row(images, row, generators) for row in range(len(images))]
        return np.concatenate([np.empty((0, 2), np.uint64), *found])
    hashes = np.asarray(hashes)
    if hashes.shape != (len(images), 2) or hashes.dtype != np.uint64:
        raise DataError(
            f"There are {len(images)} images, but their content_hashes are {hashes.dtype} of shape "
            f"{hashes.shape}.",
            "Leave the attribute out, or give (N, 2) uint64.",
        )
    return hashes


def pixel_hashes_of(images: ImageSource) -> Hashes:
    """(N, 2) hashes of the 8-bit pixels of each row, by which images of other kinds are compared.

    They are zeros where it is not known which pixels normalized values come from.
    """
    if isinstance(images, ImageTable):
        return images.content_hashes
    hashes: Hashes | None = getattr(images, "pixel_hashes", None)
    return np.zeros((len(images), 2), np.uint64) if hashes is None else hashes


def content_ids_of(images: ImageSource) -> NDArray[np.int64]:
    """(N,) numbers from 0: equal for rows of ``images`` that show the same picture."""
    if isinstance(images, ImageTable):
        return images.content_ids
    return duplicate_ids(hashes_of(images))


def keys_of(images: ImageSource) -> Hashes:
    """(N, m, 2) hashes by which a ledger knows the rows of ``images``.

    The first is of the picture itself, the others of the images that it was made of, if known. Two
    rows that agree in any of them are counted together.
    """
    hashes = hashes_of(images)
    if not isinstance(images, ImageTable):
        pixels = pixel_hashes_of(images)
        # What is known of pixels is known of tables and files with the same pixels, too.
        values = np.where(hashes == pixels, np.uint64(0), hashes)
        return np.stack([values, pixels], axis=1)
    sources = images.sources
    return hashes[:, None] if sources is None else np.concatenate([hashes[:, None], sources], 1)


def has_repeats(images: ImageSource) -> bool:
    """Whether two rows of ``images`` show the same picture, or come from the same image."""
    keys = keys_of(images)
    return not all_unique(duplicate_ids(*np.moveaxis(keys, 1, 0)))


def _hash_of_row(images: ImageSource, row: int, generators: RepeatableTransforms) -> Hashes:
    generators.again()
    found = images.rows(np.asarray([[row]]))
    return content_hashes(found.pixels[found.positions[0]])

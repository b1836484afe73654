"""`ImageSource`, the interface through which encoders read images, and hashes of its rows."""

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
from instahide.data.labels import Task
from instahide.data.normalization.normalization import Normalization
from instahide.data.table import GatheredRows, ImageTable
from instahide.errors import DataError


@runtime_checkable
class ImageSource(Protocol):
    """Images of one shape with labels, fetched by index and normalized by one affine map.

    The normalized value of a pixel returned by `rows` is ``pixel * scale + bias``, per channel.

    Two rows may show the same image, which a mix must contain only once. An implementation may
    have a further attribute ``content_hashes`` (N, 2), as computed by
    `content_hash.content_hashes`. Without it, all rows are fetched once, one by one, before the
    first image is encrypted. A further attribute ``task`` says what the labels are, if they are not
    class numbers (see `labels.Task`).
    """

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number."""
        ...

    @property
    def normalization(self) -> Normalization | None:
        """The normalization of pixel / 255, also applied to public images; None if unknown."""
        ...

    @property
    def scale(self) -> NDArray[np.float32]:
        """(C,) factor from a pixel returned by `rows` to its normalized value."""
        ...

    @property
    def bias(self) -> NDArray[np.float32]:
        """(C,) normalized value of a 0 returned by `rows`."""
        ...

    def rows(self, indices: NDArray[np.int64]) -> GatheredRows:
        """The images at ``indices`` (n, k)."""
        ...


def task_of(images: ImageSource) -> Task:
    """What the labels of ``images`` are; single-label unless they say otherwise."""
    task: Task = getattr(images, "task", "single-label")
    return task


def hashes_of(images: ImageSource) -> Hashes:
    """(N, 2) hashes of the picture that each row of ``images`` shows.

    Raises:
        DataError: ``images.content_hashes`` has another shape or type than (N, 2) uint64.
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
    """(N, 2) hashes of the 8-bit pixels of each row, comparable between tables and data sets.

    They are zeros if the pixels behind normalized values are unknown.
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
    """(N, m, 2) hashes by which a ledger identifies the rows of ``images``.

    The first is of the picture itself, the others are of the images from which it was made, if
    known, and the last of the group, if there are groups. Rows that agree in any hash share a
    count.
    """
    hashes = hashes_of(images)
    if not isinstance(images, ImageTable):
        pixels = pixel_hashes_of(images)
        # The hash of pixels also identifies tables and files with the same pixels.
        values = np.where(hashes == pixels, np.uint64(0), hashes)
        return np.stack([values, pixels], axis=1)
    known = [hashes[:, None]]
    if images.sources is not None:
        known.append(images.sources)
    if images.groups is not None:
        known.append(images.groups[:, None])
    return np.concatenate(known, axis=1)


def has_repeats(images: ImageSource) -> bool:
    """Whether two rows of ``images`` show one picture, or have a common source or group."""
    keys = keys_of(images)
    return not all_unique(duplicate_ids(*np.moveaxis(keys, 1, 0)))


def _hash_of_row(images: ImageSource, row: int, generators: RepeatableTransforms) -> Hashes:
    generators.again()
    found = images.rows(np.asarray([[row]]))
    return content_hashes(found.pixels[found.positions[0]])


def normalized_as(pool: ImageTable, like: Normalization) -> ImageTable:
    """``pool`` under the mean and standard deviation of ``like``, each in its own unit range.

    A transform normalizes floats from 0 to 1, whatever the range of their pixels was.
    """
    return pool.normalized_like(like._replace(value_range=pool.value_range))

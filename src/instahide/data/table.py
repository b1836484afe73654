"""A table of images: uint8 rows, N x C x H x W, in memory or memory-mapped."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import (
    Hashes,
    content_hashes,
    duplicate_ids,
    duplicate_row_ids,
    merge_ids,
)
from instahide.data.normalization.normalization import Normalization
from instahide.data.readers.npy_file import map_npy
from instahide.data.readers.size_limits import failure_reason
from instahide.errors import DamagedFileError, DataError
from instahide.utils.atomic_write import atomic_directory, read_regular, write_json
from instahide.utils.row_indices import row_indices

#: Largest number of evenly spaced rows from which mean and standard deviation are computed.
STATISTICS_ROWS = 20_000
#: Number of values that are counted at a time.
STATISTICS_VALUES = 1 << 18
#: Largest number of classes; a larger label is a mistake.
MAX_CLASSES = 1 << 17
#: Largest size of `table.json` in bytes; enough for a hundred thousand class names.
MOST_FACTS = 1 << 24

#: Cached properties that do not depend on the normalization.
_KEPT = ("content_hashes", "content_ids")


class GatheredRows(NamedTuple):
    """The images of a block of mixes, and the position of each mix's images in them.

    ``pixels``: (m, C, H, W), uint8 or float32; ``positions``: (n, k) rows of ``pixels``;
    ``labels``: (n, k) class numbers.
    """

    pixels: NDArray[np.generic]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]


class Normalized(Protocol):
    """An object with the mean and standard deviation of pixel / 255, per channel."""

    @property
    def mean(self) -> tuple[float, ...]:
        """One value per channel."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """One value per channel."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class ImageTable:
    """Images of one shape with their labels and normalization.

    Attributes:
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64 class numbers; all zero for a public pool, whose labels are not used.
        classes: class names by number; empty for a public pool.
        mean: mean of pixel / 255, per channel.
        std: standard deviation of pixel / 255, per channel.
        sources: (N, m, 2) uint64 hashes of the images that the rows were resized or cropped from.
            Rows with a common source count as one picture in a ledger, at any size. A hash of
            zeros means that the source is unknown; None means that no row was resized.

    Raises:
        DataError: a field has another shape or type than stated, a label has no class name, or a
            standard deviation is not positive.

    Examples:
        >>> import numpy as np
        >>> from instahide import ImageTable
        >>> pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
        >>> table = ImageTable.from_arrays(pixels, np.arange(10) % 2, ["cat", "dog"])
        >>> table
        ImageTable(10 of (3, 8, 8), 2 classes)
        >>> table.normalized().dtype
        dtype('float32')
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sources: Hashes | None = None

    def __post_init__(self) -> None:
        _validate(self)

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def __repr__(self) -> str:
        """Sizes only, because private pixels must not appear in a log."""
        return f"ImageTable({len(self)} of {self.shape}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.pixels.shape[1:]
        return int(channels), int(height), int(width)

    @property
    def normalization(self) -> Normalization:
        """`mean` and `std` together."""
        return Normalization(self.mean, self.std)

    @property
    def scale(self) -> NDArray[np.float32]:
        """(C,) factor from a pixel to its normalized value: ``pixel * scale + bias``."""
        return np.asarray(1 / (255 * np.asarray(self.std)), dtype=np.float32)

    @property
    def bias(self) -> NDArray[np.float32]:
        """(C,) normalized value of a black pixel."""
        return np.asarray(-np.asarray(self.mean) / np.asarray(self.std), dtype=np.float32)

    @cached_property
    def content_hashes(self) -> Hashes:
        """(N, 2) hashes of the pixels of each row, computed at first use."""
        return content_hashes(self.pixels)

    @cached_property
    def content_ids(self) -> NDArray[np.int64]:
        """(N,) numbers from 0: equal for rows with the same pixels or a common source."""
        pixels = duplicate_row_ids(self.pixels)
        if self.sources is None:
            return pixels
        return merge_ids(pixels, *map(duplicate_ids, np.moveaxis(self.sources, 1, 0)))

    def rows(self, indices: NDArray[np.int64]) -> GatheredRows:
        """The rows at ``indices`` (n, k), without a copy.

        Raises:
            InstaHideError: an index is not an integer or out of range.
        """
        indices = row_indices(indices, len(self), flat=False)
        return GatheredRows(self.pixels, indices, self.labels[indices])

    def normalized(
        self, indices: NDArray[np.int64] | NDArray[np.bool] | slice | None = None
    ) -> NDArray[np.float32]:
        """(n, C, H, W) float32 with mean 0 and deviation 1 per channel over the table.

        Args:
            indices: row numbers, a boolean mask, or a slice; all rows by default.

        Raises:
            InstaHideError: an index is not an integer or out of range, or a mask has another
                length.
        """
        pixels = self.pixels if indices is None else self.pixels[self._selected(indices)]
        per_channel = (slice(None), None, None)
        return pixels.astype(np.float32) * self.scale[per_channel] + self.bias[per_channel]

    def subset(self, indices: NDArray[np.int64] | NDArray[np.bool] | slice) -> ImageTable:
        """The rows at ``indices``, with the normalization of the whole table.

        Args:
            indices: row numbers, a boolean mask, or a slice.

        Raises:
            InstaHideError: an index is not an integer or out of range, or a mask has another
                length.
        """
        indices = self._selected(indices)
        sources = None if self.sources is None else self.sources[indices]
        part = replace(
            self, pixels=self.pixels[indices], labels=self.labels[indices], sources=sources
        )
        if "content_hashes" in vars(self):
            vars(part)["content_hashes"] = self.content_hashes[indices]
        return part

    def _selected(
        self, indices: NDArray[np.int64] | NDArray[np.bool] | slice
    ) -> NDArray[np.int64] | slice:
        return indices if isinstance(indices, slice) else row_indices(indices, len(self))

    def measured(self) -> ImageTable:
        """The same rows, normalized by their own mean and standard deviation."""
        mean, std = _statistics(self.pixels)
        return self._normalized_by(mean, std)

    def normalized_like(self, other: Normalized) -> ImageTable:
        """The same pixels under the normalization of ``other``."""
        return self._normalized_by(other.mean, other.std)

    def _normalized_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageTable:
        table = replace(self, mean=mean, std=std)
        kept = {name: vars(self)[name] for name in _KEPT if name in vars(self)}
        vars(table).update(kept)
        return table

    def save(self, folder: Path) -> None:
        """Write the table to ``folder`` atomically, without pickle."""
        facts = {
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "sources": self.sources is not None,
        }
        with atomic_directory(folder) as partial:
            if self.sources is not None:
                np.save(partial / "sources.npy", self.sources, allow_pickle=False)
            np.save(partial / "pixels.npy", self.pixels, allow_pickle=False)
            np.save(partial / "labels.npy", self.labels, allow_pickle=False)
            write_json(partial / "table.json", facts)

    @classmethod
    def load(cls, folder: Path) -> ImageTable:
        """Open a table that `save` wrote, memory-mapped.

        Raises:
            DamagedFileError: a file is missing, damaged, or has unexpected content.
        """
        try:
            pixels = map_npy(folder / "pixels.npy")
            if not is_eight_bit(pixels):
                raise ValueError(f"its pixels are {pixels.dtype}")
            labels = np.array(map_npy(folder / "labels.npy"))
            facts = json.loads(read_regular(folder / "table.json", MOST_FACTS))
            known = folder / "sources.npy" if facts.get("sources") else None
            return cls(
                pixels,
                labels,
                tuple(facts["classes"]),
                tuple(facts["mean"]),
                tuple(facts["std"]),
                None if known is None else np.array(map_npy(known)),
            )
        except Exception as error:  # NumPy and JSON raise many kinds of errors on damaged files
            raise DamagedFileError(
                f"{folder} is not a readable image table ({failure_reason(error)}).",
                "Make it again with `instahide public`, or name the folder that holds table.json.",
            ) from error

    @classmethod
    def from_arrays(
        cls,
        pixels: NDArray[np.generic],
        labels: NDArray[np.generic] | Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        sources: Hashes | None = None,
    ) -> ImageTable:
        """A table from uint8 arrays (N, H, W), (N, H, W, C) or (N, C, H, W).

        ``sources`` are as in the table; leave them out for images that were not resized.
        Mean and standard deviation are computed from at most `STATISTICS_ROWS` rows.

        Raises:
            InstaHideError: an array has a wrong type or shape, or labels do not fit the images.
        """
        rows = channels_first(pixels)
        if labels is None:
            numbers, names = np.zeros(len(rows), np.int64), tuple(classes or ())
        else:
            numbers = _class_numbers(labels)
            count = int(numbers.max(initial=-1)) + 1
            names = tuple(classes) if classes else tuple(str(number) for number in range(count))
        mean, std = _statistics(rows)
        return cls(rows, numbers, names, mean, std, sources)


def is_eight_bit(pixels: NDArray[np.generic]) -> TypeGuard[NDArray[np.uint8]]:
    """Whether ``pixels`` are uint8."""
    return pixels.dtype == np.uint8


def channels_first(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(N, H, W) or (N, H, W, C) or (N, C, H, W) -> (N, C, H, W), with C = 1 or 3.

    Raises:
        DataError: ``pixels`` are not uint8, or have another shape.
    """
    if not is_eight_bit(pixels):
        raise DataError(
            f"Images must be 8-bit pixels (uint8); these are {pixels.dtype}.",
            "Give pixels from 0 to 255, or wrap float images in an `ImageDataset`.",
        )
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3):
        return pixels
    if pixels.ndim == 4 and pixels.shape[3] in (1, 3):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    raise DataError(
        f"Images of shape {pixels.shape} are none of N x H x W, N x H x W x C, N x C x H x W.",
        "Stack images of one size, with 1 or 3 channels.",
    )


def _class_numbers(labels: NDArray[np.generic] | Sequence[int]) -> NDArray[np.int64]:
    numbers = np.asarray(labels)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise DataError(
            f"Labels must be one whole number an image; these are {numbers.dtype} "
            f"of shape {numbers.shape}.",
            "Give class numbers from 0 to the number of classes less one.",
        )
    if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) < MAX_CLASSES:
        raise DataError(
            f"Labels run from {numbers.min()} to {numbers.max()}.",
            "Number the classes from 0 without gaps.",
        )
    return numbers.astype(np.int64)


def _statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if len(pixels) == 0:
        raise DataError("There are no images.", "Name a source that holds at least one.")
    step = -(-len(pixels) // STATISTICS_ROWS)
    sample = pixels[::step]
    # Counts of the 256 values give exact moments without a float copy of the images.
    counts = np.zeros((pixels.shape[1], 256), np.int64)
    # In chunks, because counting takes eight bytes per value.
    rows = max(1, STATISTICS_VALUES // math.prod(pixels.shape[1:]))
    for start in range(0, len(sample), rows):
        for channel, values in enumerate(sample[start : start + rows].swapaxes(0, 1)):
            counts[channel] += np.bincount(values.reshape(-1), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt(np.maximum(share @ values**2 - mean**2, 0))
    # A constant channel has no spread: any positive deviation will do.
    return tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist())


def _validate(table: ImageTable) -> None:
    pixels, labels = table.pixels, table.labels
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or 0 in pixels.shape[1:]:
        raise DataError(
            f"A table holds uint8 images N x C x H x W, not {pixels.dtype} {pixels.shape}.",
            "Use `ImageTable.from_arrays`, which brings arrays into this form.",
        )
    if labels.shape != (len(pixels),) or labels.dtype.kind != "i":
        raise DataError(
            f"There are {len(pixels)} images but {labels.dtype} labels of shape {labels.shape}.",
            "Give exactly one class number an image.",
        )
    _validate_sources(table.sources, len(pixels))
    if not all(isinstance(name, str) for name in table.classes):
        raise DataError("A class name is not a string.", "Name every class by a string.")
    if table.classes and len(labels) and not 0 <= labels.min() <= labels.max() < len(table.classes):
        raise DataError(
            f"Labels run from {labels.min()} to {labels.max()}, "
            f"but there are {len(table.classes)} classes.",
            f"Use labels from 0 to {len(table.classes) - 1}, or name every class.",
        )
    channels = pixels.shape[1]
    moments = np.asarray([*table.mean, *table.std], dtype=np.float64)
    if moments.shape != (2 * channels,) or not np.isfinite(moments).all():
        raise DataError(
            f"Mean and standard deviation must be {channels} finite numbers each.",
            "Leave them out to have them measured.",
        )
    if min(table.std) <= 0:
        raise DataError(
            "A standard deviation is not positive.", "Leave it out to have it measured."
        )


def _validate_sources(sources: Hashes | None, count: int) -> None:
    if sources is None:
        return
    if sources.dtype != np.uint64 or sources.ndim != 3 or sources.shape[::2] != (count, 2):
        raise DataError(
            f"There are {count} images but {sources.dtype} hashes of their sources of shape "
            f"{sources.shape}.",
            "Leave them out, or give (N, m, 2) uint64.",
        )

"""A table of images or volumes with their labels, in memory or memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import (
    Hashes,
    content_hashes,
    duplicate_ids,
    duplicate_row_ids,
    merge_ids,
)
from instahide.data.duplicates.group_hash import group_hashes, require_hashes
from instahide.data.labels import Labels, Task, make_labels, require_labels, require_no_masks
from instahide.data.normalization.normalization import Normalization, Normalized
from instahide.data.pixel_units import require_same_unit
from instahide.data.pixels import (
    EIGHT_BIT,
    Pixels,
    ValueRange,
    channel_moments,
    channels_first,
    clip_pixels,
    convert_pixels,
    full_range,
    pixel_ends,
    require_moments,
    require_pixels,
    require_range,
)
from instahide.data.readers.arrays.npy_file import map_npy
from instahide.errors import DamagedFileError, DataError, failure_reason
from instahide.utils.atomic_write import atomic_directory, read_regular, write_json
from instahide.utils.row_indices import row_indices

#: Largest size of `table.json` in bytes; enough for a hundred thousand class names.
MOST_FACTS = 1 << 24

#: Cached properties that do not depend on the normalization.
_KEPT = ("content_hashes", "content_ids")


class GatheredRows(NamedTuple):
    """The images of a block of mixes, and the position of each mix's images in them.

    ``pixels``: (m, C, H, W) or (m, C, D, H, W); ``positions``: (n, k) rows of ``pixels``;
    ``labels``: (n, k) class numbers, or (n, k, columns) targets.
    """

    pixels: NDArray[np.generic]
    positions: NDArray[np.int64]
    labels: Labels


@dataclass(frozen=True, eq=False, repr=False)
class ImageTable:
    """Images or volumes of one shape with their labels and normalization.

    The *unit range* of a pixel is ``(pixel - low) / (high - low)`` with the table's value range:
    pixel / 255 for 8-bit pixels.

    Attributes:
        pixels: (N, C, H, W), or (N, C, D, H, W) for volumes; uint8, uint16, int16 or float32.
        labels: (N,) int64 class numbers; all zero for a public pool, whose labels are not used. Of
            other tasks than ``single-label`` (N, columns) float32 targets; NaN for an unknown
            finding.
        classes: class names by number, or the names of the columns; empty for a public pool.
        mean: mean of pixels in the unit range, per channel.
        std: standard deviation of pixels in the unit range, per channel.
        sources: (N, m, 2) uint64 hashes of the images that the rows were resized or cropped from.
            Rows with a common source count as one picture in a ledger, at any size. A hash of
            zeros means that the source is unknown; None means that no row was resized.
        value_range: the lowest and the highest value that a pixel can have.
        task: what the labels are, see `labels.Task`.
        groups: (N, 2) uint64 hashes of the names of the groups, see `grouped`; zeros for an image
            in no group. None means that each image is a group of its own.
        absolute: whether pixels have a unit, such as Hounsfield units. `with_pixels_like` then
            keeps their values, instead of stretching their range to that of the other images.

    Raises:
        DataError: a field has another shape or type than stated, a label has no class name, or a
            standard deviation is not positive or above `pixels.MOST_DEVIATION`.

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

    pixels: Pixels
    labels: Labels
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sources: Hashes | None = None
    value_range: ValueRange = EIGHT_BIT
    task: Task = "single-label"
    groups: Hashes | None = None
    absolute: bool = False

    def __post_init__(self) -> None:
        _validate(self)

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def __repr__(self) -> str:
        """Sizes only, because private pixels must not appear in a log."""
        return f"ImageTable({len(self)} of {self.shape}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image, or (C, D, H, W) of every volume."""
        return tuple(map(int, self.pixels.shape[1:]))

    @property
    def normalization(self) -> Normalization:
        """`mean`, `std` and `value_range`."""
        return Normalization(self.mean, self.std, self.value_range)

    @property
    def scale(self) -> NDArray[np.float32]:
        """(C,) factor from a pixel to its normalized value: ``pixel * scale + bias``."""
        low, high = self.value_range
        return np.asarray(1 / ((high - low) * np.asarray(self.std)), dtype=np.float32)

    @property
    def bias(self) -> NDArray[np.float32]:
        """(C,) normalized value of a pixel 0."""
        low, high = self.value_range
        zero = -low / (high - low)
        return np.asarray((zero - np.asarray(self.mean)) / np.asarray(self.std), dtype=np.float32)

    @property
    def black(self) -> float:
        """The lowest value of a pixel."""
        return pixel_ends(self.value_range, self.pixels.dtype)[0]

    @cached_property
    def content_hashes(self) -> Hashes:
        """(N, 2) hashes of the pixels of each row, computed at first use."""
        return content_hashes(self.pixels)

    @cached_property
    def content_ids(self) -> NDArray[np.int64]:
        """(N,) numbers from 0: equal for rows with the same pixels, a common source or group."""
        found = [duplicate_row_ids(self.pixels)]
        if self.sources is not None:
            found += map(duplicate_ids, np.moveaxis(self.sources, 1, 0))
        if self.groups is not None:
            found.append(duplicate_ids(self.groups))
        return merge_ids(*found) if len(found) > 1 else found[0]

    @property
    def group_ids(self) -> NDArray[np.int64] | None:
        """(N,) numbers from 0, equal for rows of one group; None if no groups are known."""
        return None if self.groups is None else duplicate_ids(self.groups)

    def rows(self, indices: NDArray[np.int64]) -> GatheredRows:
        """The rows at ``indices`` (n, k), without a copy if rows lie one after the other.

        Raises:
            InstaHideError: an index is not an integer or out of range.
        """
        indices = row_indices(indices, len(self), flat=False)
        if not self.pixels.flags.c_contiguous:
            unique, places = np.unique(indices, return_inverse=True)
            pixels = np.ascontiguousarray(self.pixels[unique])
            return GatheredRows(pixels, places.reshape(indices.shape), self.labels[indices])
        return GatheredRows(self.pixels, indices, self.labels[indices])

    def normalized(
        self, indices: NDArray[np.int64] | NDArray[np.bool] | slice | None = None
    ) -> NDArray[np.float32]:
        """(n, C, H, W) or (n, C, D, H, W) float32, mean 0 and deviation 1 per channel.

        Args:
            indices: row numbers, a boolean mask, or a slice; all rows by default.

        Raises:
            InstaHideError: an index is not an integer or out of range, or a mask has another
                length.
        """
        pixels = self.pixels if indices is None else self.pixels[self._selected(indices)]
        per_channel = (slice(None), *(None for _ in self.shape[1:]))
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
        part = replace(
            self,
            pixels=self.pixels[indices],
            labels=self.labels[indices],
            sources=None if self.sources is None else self.sources[indices],
            groups=None if self.groups is None else self.groups[indices],
        )
        if "content_hashes" in vars(self):
            vars(part)["content_hashes"] = self.content_hashes[indices]
        return part

    def _selected(
        self, indices: NDArray[np.int64] | NDArray[np.bool] | slice
    ) -> NDArray[np.int64] | slice:
        return indices if isinstance(indices, slice) else row_indices(indices, len(self))

    def measured(self) -> ImageTable:
        """The same rows under their own mean and standard deviation, instead of a whole's."""
        mean, std = channel_moments(self.pixels, self.value_range)
        return self.normalized_like(Normalization(mean, std, self.value_range))

    def normalized_like(self, other: Normalized) -> ImageTable:
        """The same pixels under the normalization and the value range of ``other``."""
        table = replace(self, mean=other.mean, std=other.std, value_range=other.value_range)
        kept = {name: vars(self)[name] for name in _KEPT if name in vars(self)}
        vars(table).update(kept)
        return table

    def with_pixels(self, pixels: Pixels, value_range: ValueRange) -> ImageTable:
        """The same pictures with other ``pixels``, known by the present rows and their sources."""
        if pixels is self.pixels:
            return replace(self, value_range=value_range)
        known = self.content_hashes[:, None]
        sources = known if self.sources is None else np.concatenate([known, self.sources], axis=1)
        return replace(self, pixels=pixels, value_range=value_range, sources=sources)

    def with_pixels_like(self, other: ImageTable) -> ImageTable:
        """The same pictures with pixels of the type and the value range of ``other``.

        The lowest value of the one range becomes that of the other, and likewise the highest.
        `absolute` pixels keep their values; those beyond the other range are set to its nearer end.

        Raises:
            DataError: absolute pixels seem to be in another unit.
        """
        dtype, new_range = other.pixels.dtype, other.value_range
        if self.pixels.dtype == dtype and self.value_range == new_range:
            return self
        if self.absolute and self.value_range != new_range:
            require_same_unit(self.pixels, new_range, "the public images", "the private ones")
        known = new_range if self.absolute else self.value_range
        pixels = convert_pixels(self.pixels, known, dtype, new_range)
        return replace(self, pixels=pixels, value_range=new_range)

    def grouped(self, groups: Sequence[str] | NDArray[np.generic]) -> ImageTable:
        """The same rows, where those of one group count as one picture.

        A group is all that is to be protected together, such as the images of one patient.
        Exposure, its limits, the ledger and epsilon then count groups, in this run and in all
        others that use the same names, and a mix never holds two images of one group.

        Args:
            groups: (N,) names of the groups, which are compared character by character; an empty
                name for an image in no group.

        Raises:
            DataError: there are more or fewer names than images, or the table has groups already.

        Examples:
            >>> from instahide import open_split
            >>> images = open_split("digits").train
            >>> table = images.grouped([f"patient {row // 3}" for row in range(len(images))])
        """
        if self.groups is not None:
            raise DataError(
                "The images have groups already.", "Group the table that has none, once."
            )
        return replace(self, groups=group_hashes(groups, len(self)))

    def save(self, folder: Path) -> None:
        """Write the table to ``folder`` atomically, without pickle.

        Names of groups are not written, but their hashes are. Whoever has a list of possible names
        can look for them among the hashes, so keep the folder as private as the names.
        """
        facts = {
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "sources": self.sources is not None,
            "groups": self.groups is not None,
            "absolute": self.absolute,
            "value_range": self.value_range,
            "task": self.task,
        }
        with atomic_directory(folder) as partial:
            for name, hashes in (("sources", self.sources), ("groups", self.groups)):
                if hashes is not None:
                    np.save(partial / f"{name}.npy", hashes, allow_pickle=False)
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
            labels = np.array(map_npy(folder / "labels.npy"))
            facts = json.loads(read_regular(folder / "table.json", MOST_FACTS))
            known = [
                np.array(map_npy(folder / f"{name}.npy")) if facts.get(name) else None
                for name in ("sources", "groups")
            ]
            names = ("classes", "mean", "std", "value_range")
            classes, mean, std, value_range = (tuple(facts[name]) for name in names)
            sources, groups = known
            absolute = facts.get("absolute") is True
            moments = mean, std, sources, value_range
            return cls(pixels, labels, classes, *moments, facts["task"], groups, absolute)
        except Exception as error:  # NumPy and JSON raise many kinds of errors on damaged files
            raise DamagedFileError(
                f"{folder} is not a readable image table ({failure_reason(error)}).",
                "Make it again with `instahide public`, or name the folder that holds table.json.",
            ) from error

    @classmethod
    def from_arrays(
        cls,
        pixels: NDArray[np.generic],
        labels: NDArray[np.generic] | Sequence[int] | Sequence[Sequence[float]] | None = None,
        classes: Sequence[str] | None = None,
        sources: Hashes | None = None,
        *,
        value_range: ValueRange | None = None,
        task: Task = "single-label",
    ) -> ImageTable:
        """A table from arrays as they come.

        Args:
            pixels: uint8, uint16, int16 or float32, as `pixels.channels_first` takes them.
            labels: (N,) class numbers, or targets as `labels.make_labels` takes them; none for a
                public pool.
            classes: class names by number, or of the columns; their numbers by default.
            sources: as in the table; leave them out for images that nobody has resized.
            value_range: the lowest and the highest value that a pixel can have; by default 0 to 255
                for 8-bit pixels, else the lowest and the highest that there are. Pixels beyond are
                set to the nearer end.
            task: what the labels are.

        Raises:
            DataError: wrong type or shape, labels that do not fit, or pixels that are not finite.
        """
        require_pixels(pixels)
        rows = channels_first(pixels)
        if not rows.flags.c_contiguous:
            rows = np.ascontiguousarray(rows)
        known = full_range(rows)
        if labels is None:
            made: Labels = np.zeros(len(rows), np.int64)
            names = tuple(classes or ())
        else:
            made, names = make_labels(labels, classes, task)
        kept = rows if value_range is None else clip_pixels(rows, value_range)
        moments = channel_moments(kept, value_range or known)
        table = cls(rows, made, names, *moments, sources, known, task)
        return table.with_pixels(kept, value_range or known)


def _validate(table: ImageTable) -> None:
    pixels, labels = table.pixels, table.labels
    require_pixels(pixels)
    if pixels.ndim not in (4, 5) or 0 in pixels.shape[1:]:
        raise DataError(
            f"A table holds images N x C x H x W or N x C x D x H x W, not {pixels.shape}.",
            "Use `ImageTable.from_arrays`, which brings arrays into this form.",
        )
    require_range(table.value_range, pixels.dtype)
    require_labels(labels, table.classes, len(pixels), table.task)
    if table.task != "single-label":
        require_no_masks(len(table.classes), table.shape)
    require_hashes(table.sources, table.groups, len(pixels))
    require_moments(table.mean, table.std, pixels.shape[1])

"""Images of a PyTorch map-style data set, with its own transforms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import (
    Hashes,
    content_hashes,
    denormalize_to_uint8,
    duplicate_ids,
)
from instahide.data.duplicates.repeatable_transforms import RepeatableTransforms
from instahide.data.introspection import class_names, num_classes, read_classes
from instahide.data.items import Item, MapDataset, read_item
from instahide.data.normalization.channel_statistics import ChannelStatistics
from instahide.data.normalization.normalization import (
    Normalization,
    require_consistent_normalization,
    require_plausible_scale,
    require_possible_moments,
)
from instahide.data.pixels import is_eight_bit
from instahide.data.splits import class_count
from instahide.data.table import GatheredRows, ImageTable
from instahide.errors import DataError
from instahide.utils.parallel import parallel_map
from instahide.utils.row_indices import row_indices

#: Number of evenly spaced items on which mean and standard deviation are measured.
MEASURED_ITEMS = 1_000
#: Number of evenly spaced items whose normalized values are checked.
CHECKED_ITEMS = 32


class ImageDataset:
    """The normalized images of a PyTorch map-style data set, fetched on every use.

    Items are (image, label) pairs, or mappings with ``image``, ``img`` or ``pixel_values`` and
    ``label``, ``labels`` or ``fine_label``. PIL images and uint8 arrays are divided by 255 and
    normalized with ``mean`` and ``std``. Float images (C, H, W) must be normalized already.
    Random transforms draw from their own generators; their draws are not secret.

    Args:
        dataset: has ``__len__`` and ``__getitem__``.
        mean: mean of pixel / 255, per channel; for float images, the mean that their transform
            subtracted, which is also applied to public images. Measured on at most
            `MEASURED_ITEMS` items by default. If it is above 1, ``mean`` and ``std`` are taken to
            be in units of pixels from 0 to 255.
        std: standard deviation, per channel, likewise.
        classes: class names by number, or the number of classes; by default those that the data
            set declares, else the largest label plus 1.
        workers: threads that fetch items; use 1 for a data set that is not thread-safe.

    Raises:
        DataError: the data set is empty or has no ``__len__`` or ``__getitem__``; an item is not
            an image with a label, or differs in shape or type from the first; only one of ``mean``
            and ``std`` is given for float images; the values do not match ``mean`` and ``std``; or
            all values have the same sign, so that the mask would hide nothing.

    Examples:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from instahide import ImageDataset
        >>> images, labels = torch.randn(20, 3, 8, 8), torch.arange(20) % 2
        >>> dataset = ImageDataset(TensorDataset(images, labels), classes=["cat", "dog"])
        >>> len(dataset), dataset.shape, dataset.classes
        (20, (3, 8, 8), ('cat', 'dog'))
    """

    def __init__(
        self,
        dataset: MapDataset,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: int | Sequence[str] | None = None,
        workers: int | None = None,
    ) -> None:
        self._dataset = dataset
        self._workers = workers
        self._length = _length(dataset)
        self._first = self._fetch(0)
        measures = self._first.pixels.dtype == np.uint8 and (mean is None or std is None)
        sample = self._sample(MEASURED_ITEMS if measures else CHECKED_ITEMS)
        self._normalization = _normalization(sample, mean, std)
        self._statistics = ChannelStatistics.of_values(
            self._normalized(sample[:: -(-len(sample) // CHECKED_ITEMS)])
        )
        _require_normalized(
            self._statistics,
            self._normalization,
            pixels=sample.dtype == np.uint8,
            stated=mean is not None,
        )
        self._classes = self._class_names(classes)

    def __len__(self) -> int:
        return self._length

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image, or (C, D, H, W) of every volume."""
        return tuple(map(int, self._first.pixels.shape))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by number."""
        return self._classes

    @property
    def normalization(self) -> Normalization | None:
        """How pixel / 255 is normalized; None for float images without a stated ``mean``."""
        return self._normalization

    @property
    def scale(self) -> NDArray[np.float32]:
        """(C,) ones, because `rows` returns normalized values."""
        return np.ones(self.shape[0], np.float32)

    @property
    def bias(self) -> NDArray[np.float32]:
        """(C,) zeros, because `rows` returns normalized values."""
        return np.zeros(self.shape[0], np.float32)

    @property
    def statistics(self) -> ChannelStatistics:
        """Statistics of the normalized values of the items that were checked."""
        return self._statistics

    @cached_property
    def content_hashes(self) -> Hashes:
        """(N, 2) hashes of the image of each item, computed at first use from all items in turn.

        Before each item, the generators of `random`, NumPy and PyTorch, and those in the data set
        and its transforms, are set to the same state, so that random transforms keep equal
        pictures equal. Afterwards their states are restored.
        """
        return self._hashes[0]

    @property
    def pixel_hashes(self) -> Hashes:
        """(N, 2) hashes of the 8-bit pixels of each item, comparable with those of a table.

        For float images, the nearest pixels under `normalization` are hashed; zeros without it.
        """
        return self._hashes[1]

    @cached_property
    def content_ids(self) -> NDArray[np.int64]:
        """(N,) numbers from 0: equal for items with equal images, whatever their labels."""
        return duplicate_ids(self.content_hashes)

    @cached_property
    def _hashes(self) -> tuple[Hashes, Hashes]:
        """`content_hashes` and `pixel_hashes`, from one pass over all items."""
        with RepeatableTransforms(self._dataset) as generators:
            found = [self._hash(index, generators) for index in range(len(self))]
        exact, pixels = (np.concatenate(hashes) for hashes in zip(*found, strict=True))
        return exact, pixels

    def rows(self, indices: NDArray[np.int64]) -> GatheredRows:
        """The items ``indices`` (n, k), each fetched once: pixels (m, C, H, W) float32.

        Raises:
            DataError: an index is not an integer or out of range; or an item cannot be read, has
                another shape or type than the first, is not finite, or has a label out of range.
                The message names the item.
        """
        indices = row_indices(indices, len(self), flat=False)
        unique, positions = np.unique(indices, return_inverse=True)
        items = list(parallel_map(self._fetch, unique.tolist(), self._workers))
        labels = np.asarray([item.label for item in items], np.int64)
        for index, label in zip(unique, labels, strict=True):
            if not 0 <= label < len(self._classes):
                raise DataError(
                    f"Item {index} has the label {label}, "
                    f"but there are {len(self._classes)} classes.",
                    f"Use labels from 0 to {len(self._classes) - 1}, or name every class.",
                )
        positions = positions.reshape(indices.shape)
        pixels = self._normalized(np.stack([item.pixels for item in items]))
        return GatheredRows(pixels, positions, labels[positions])

    def _fetch(self, index: int) -> Item:
        item = read_item(self._dataset, index)
        first = getattr(self, "_first", item)
        if (item.pixels.shape, item.pixels.dtype) != (first.pixels.shape, first.pixels.dtype):
            raise DataError(
                f"Item {index} is {item.pixels.dtype} {item.pixels.shape}, "
                f"but item 0 is {first.pixels.dtype} {first.pixels.shape}.",
                "Let the data set's transform resize and convert every image alike.",
            )
        return item

    def _hash(self, index: int, generators: RepeatableTransforms) -> tuple[Hashes, Hashes]:
        generators.again()
        values = self._fetch(index).pixels[None]
        exact = content_hashes(values)
        if is_eight_bit(values):
            return exact, exact
        if self._normalization is None:
            return exact, np.zeros_like(exact)
        floats = values.astype(np.float32)
        return exact, content_hashes(denormalize_to_uint8(floats, *self._normalization[:2]))

    def _sample(self, count: int) -> NDArray[np.generic]:
        indices = np.unique(np.linspace(0, self._length - 1, count).astype(np.int64)).tolist()
        return np.stack([item.pixels for item in parallel_map(self._fetch, indices, self._workers)])

    def _normalized(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        if not is_eight_bit(pixels) or self._normalization is None:
            return pixels.astype(np.float32, copy=False)
        # The same formula as `ImageTable`, so that both agree to the last bit.
        mean, std, _ = self._normalization
        table = ImageTable(pixels, np.zeros(len(pixels), np.int64), (), mean, std)
        return table.normalized()

    def _class_names(self, given: object) -> tuple[str, ...]:
        # A string is a list of one-letter names.
        given = tuple(given) if isinstance(given, str) else given
        stated = read_classes(given) or class_names(self._dataset)
        if isinstance(stated, tuple) and stated:
            return stated
        count = stated if isinstance(stated, int) else num_classes(self._dataset)
        if not count:
            fetched = parallel_map(self._fetch, range(self._length), self._workers)
            count = class_count(np.asarray([item.label for item in fetched]))
        return tuple(map(str, range(count)))


def _length(dataset: MapDataset) -> int:
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            "The data set is a stream, and has no items by index.",
            "Use a map-style data set, which has __len__ and __getitem__.",
        )
    if len(dataset) == 0:
        raise DataError("The data set is empty.", "Give one with at least two images.")
    return len(dataset)


def _normalization(
    sample: NDArray[np.generic], mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalization | None:
    """The stated normalization, completed by measured values; None for float images without one."""
    if sample.dtype == np.uint8 and (mean is None or std is None):
        measured = ImageTable.from_arrays(sample)
        mean = measured.mean if mean is None else mean
        std = measured.std if std is None else std
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise DataError("Only one of mean and std is given.", "Pass both or none.")
    normalization = Normalization.of(mean, std)
    # `ImageTable` validates both.
    empty = np.empty((0, sample.shape[1], 1, 1), np.uint8)
    ImageTable(empty, np.empty(0, np.int64), (), normalization.mean, normalization.std)
    return normalization


def _require_normalized(
    statistics: ChannelStatistics,
    normalization: Normalization | None,
    *,
    pixels: bool,
    stated: bool,
) -> None:
    """Check that a few items have values that ``normalization`` can give."""
    if pixels:
        require_plausible_scale(statistics)
    if normalization is not None and stated:
        if not pixels:
            require_consistent_normalization(statistics, normalization)
        require_possible_moments(normalization)
    # These may be public images, which get the private images' mean and may be brighter or darker.
    # The encoder checks the signs of private images in more detail.
    if not statistics.positive.any() or not statistics.negative.any():
        raise DataError(
            "All values have one sign after normalization, so the mask would hide nothing.",
            "Let the data set give 8-bit images, or add Normalize(mean, std) to its transform.",
        )

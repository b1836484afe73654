"""Per-channel statistics of normalized images, for the checks of a normalization."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from instahide.data.image_source import ImageSource
from instahide.data.table import ImageTable

#: Number of images of a batch whose values are summed; minima and maxima are over all images.
SUMMED_IMAGES = 64
#: Number of images of a data set that are fetched for statistics.
FETCHED_IMAGES = 32
#: Largest numbers of images and pixels of a table that are used for statistics.
TABLE_IMAGES, TABLE_PIXELS = 1_000, 8_000_000


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Statistics of normalized values; those of two batches are added with ``+``.

    Attributes:
        images: number of images used.
        low: (C,) the smallest value.
        high: (C,) the largest value.
        count: number of values of a channel that were summed.
        positive: (C,) the sum of the positive values.
        negative: (C,) the sum of the negative values' magnitudes.
        squares: (C,) the sum of the squared values.
        above: (C,) number of positive values.
        below: (C,) number of negative values.
    """

    images: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: int
    positive: NDArray[np.float64]
    negative: NDArray[np.float64]
    squares: NDArray[np.float64]
    above: NDArray[np.int64]
    below: NDArray[np.int64]

    @classmethod
    def of_values(cls, values: NDArray[np.floating]) -> Self:
        """Statistics of normalized images (n, C, H, W), n >= 1.

        NaN and infinite values appear in ``low`` or ``high``.
        """
        step = -(-len(values) // SUMMED_IMAGES)
        summed = values[::step].astype(np.float32, copy=False)
        flat = summed.reshape(*summed.shape[:2], math.prod(summed.shape[2:]))
        axes = (0, *range(2, values.ndim))
        positive = np.maximum(summed, 0).sum(axis=axes, dtype=np.float64)
        return cls(
            len(values),
            values.min(axis=axes).astype(np.float64),
            values.max(axis=axes).astype(np.float64),
            summed[:, 0].size,
            positive,
            positive - summed.sum(axis=axes, dtype=np.float64),
            np.einsum("ncv,ncv->c", flat, flat, dtype=np.float64),
            np.count_nonzero(summed > 0, axis=axes),
            np.count_nonzero(summed < 0, axis=axes),
        )

    @classmethod
    def of_table(cls, table: ImageTable) -> Self:
        """Statistics of at most `TABLE_IMAGES` evenly spaced images of a nonempty table."""
        pixels = table.pixels
        most = max(FETCHED_IMAGES, min(TABLE_IMAGES, TABLE_PIXELS // pixels[0].size))
        sample = pixels[:: -(-len(pixels) // most)]
        if pixels.dtype != np.uint8:
            return cls.of_values(table.normalized(slice(None, None, -(-len(pixels) // most))))
        # Counts of the 256 values: a float copy of large images would fill the memory.
        counts = np.stack(
            [
                np.bincount(sample[:, channel].reshape(-1), minlength=256)
                for channel in range(pixels.shape[1])
            ]
        )
        values = np.arange(256) * table.scale[:, None].astype(np.float64) + table.bias[:, None]
        present = counts > 0
        return cls(
            len(sample),
            np.where(present, values, np.inf).min(axis=1),
            np.where(present, values, -np.inf).max(axis=1),
            sample[:, 0].size,
            (counts * np.maximum(values, 0)).sum(axis=1),
            (counts * np.maximum(-values, 0)).sum(axis=1),
            (counts * values**2).sum(axis=1),
            (counts * (values > 0)).sum(axis=1),
            (counts * (values < 0)).sum(axis=1),
        )

    @classmethod
    def of_images(cls, images: ImageSource) -> ChannelStatistics:
        """Statistics of a table; of a data set, those it has measured or those of a few items."""
        if isinstance(images, ImageTable):
            return cls.of_table(images)
        measured = getattr(images, "statistics", None)
        if isinstance(measured, ChannelStatistics):
            return measured
        numbers = np.unique(np.linspace(0, len(images) - 1, FETCHED_IMAGES).astype(np.int64))
        pixels = images.rows(numbers[:, None]).pixels.astype(np.float32)
        per_channel = (-1, *(1 for _ in pixels.shape[2:]))
        values = pixels * images.scale.reshape(per_channel)
        return cls.of_values(values + images.bias.reshape(per_channel))

    def __add__(self, other: ChannelStatistics) -> ChannelStatistics:
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        sums = {
            each.name: getattr(self, each.name) + getattr(other, each.name)
            for each in fields(self)
            if each.name not in ("low", "high")
        }
        return ChannelStatistics(low=low, high=high, **sums)

    @property
    def finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    @property
    def varied(self) -> NDArray[np.bool]:
        """(C,) whether the channel has more than one value."""
        return self.low < self.high

    @property
    def magnitude(self) -> NDArray[np.float64]:
        """(C,) root mean square of the values; 1 under the images' own mean and deviation."""
        return np.sqrt(self.squares / self.count)

    @property
    def rarer_values(self) -> NDArray[np.float64]:
        """(C,) share of the rarer sign in the number of the values that are not 0."""
        return _share_of_rarer(self.above, self.below)

    @property
    def rarer_sign(self) -> NDArray[np.float64]:
        """(C,) share of the rarer sign in the sum of the magnitudes: from 0 to 0.5.

        It is 0.5 if images are normalized by their own mean, and falls to 0 as the mean moves to
        either end of the values. The share of the number of values would be misleading: a black
        background counts as negative however close to 0 its values are.
        """
        return _share_of_rarer(self.positive, self.negative)


def _share_of_rarer(
    positive: NDArray[np.float64 | np.int64], negative: NDArray[np.float64 | np.int64]
) -> NDArray[np.float64]:
    total = positive + negative
    share: NDArray[np.float64] = np.full(len(total), 0.5)
    np.divide(np.minimum(positive, negative), total, out=share, where=total > 0)
    return share

"""Checks that pixels are in the unit of other images, such as Hounsfield units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.data.pixels import EIGHT_BIT, Pixels, ValueRange
from instahide.errors import DataError

#: Rows whose pixels tell whether images are in the unit of others, at most.
RANGE_ROWS = 200
#: Values that are looked at, at most.
_SAMPLED = 1 << 23
#: Pixels that span less than this part of the range are taken to be in another unit, such as 12-bit
#: pixels among 16-bit ones.
LEAST_SPAN = 8
#: The range of rescaled images; and how far, and which share of all values at most, values may be
#: below it, as after resizing.
UNIT, BELOW, SELDOM = (0.0, 1.0), 0.05, 0.25


def require_same_unit(
    pixels: Pixels, value_range: ValueRange, these: str = "the images", others: str = "those before"
) -> None:
    """Check that ``pixels`` (N, ...) seem to be in the unit of images with ``value_range``.

    Args:
        pixels: the pixels.
        value_range: the range of the other images.
        these: what a message calls the images of ``pixels``.
        others: what it calls the other images.

    Raises:
        DataError: they are of another bit depth, most of them are above the range, they fill little
            of it, or they are below that of 0 to 1, as values from -1 to 1 are.
    """
    low, high = value_range
    sample = _sample(pixels)
    # The background may be as dark in any unit.
    bright = sample[sample > low]
    eight_bits = pixels.dtype == np.uint8
    in_eight_bits = EIGHT_BIT[0] <= low and high <= EIGHT_BIT[1]
    if (
        (eight_bits and not in_eight_bits)
        or (value_range == EIGHT_BIT and not eight_bits)
        or (bright > high).sum() > len(bright) / 2
        or (value_range == UNIT and (sample < -BELOW).mean() > SELDOM)
        or np.ptp(sample.clip(low, high)) < (high - low) / LEAST_SPAN
    ):
        raise DataError(
            f"The pixels of {these}, {pixels.dtype} from {sample.min():g} to {sample.max():g}, "
            f"seem to be in another unit than {others}, from {low:g} to {high:g}.",
            "Give images of the same bit depth and unit. If they are in one unit, name this range "
            "as their `window=`; if not, state the `window=` of each and use `rescale=True` for "
            "all.",
        )


def _sample(pixels: Pixels) -> NDArray[np.float64]:
    """(n, m) evenly spaced values of evenly spaced rows."""
    rows = pixels[:: max(1, -(-len(pixels) // RANGE_ROWS))]
    step = max(1, -(-rows.size // _SAMPLED))
    return rows.reshape(len(rows), -1)[:, ::step].astype(np.float64)

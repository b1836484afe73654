"""Pixel types, and the arrays that images come as."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from instahide.errors import DataError

#: Pixels of one of `DTYPES`.
Pixels: TypeAlias = NDArray[np.generic]
#: The pixel values that mean 0 and 1 before normalization.
ValueRange: TypeAlias = tuple[float, float]

#: The types of pixels that a table holds.
DTYPES = tuple(map(np.dtype, (np.uint8, np.uint16, np.int16, np.float32)))
#: Largest side of an image, in pixels.
MOST_SIDE = 1 << 14
#: The range of 8-bit pixels.
EIGHT_BIT: ValueRange = (0.0, 255.0)
#: The range of rescaled pixels.
UNIT: ValueRange = (0.0, 1.0)
#: The lowest and the highest value of each type.
_EXTREMES = {
    np.dtype(np.float32): (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)),
    np.dtype(np.uint8): EIGHT_BIT,
    np.dtype(np.uint16): (0.0, 65535.0),
    np.dtype(np.int16): (-32768.0, 32767.0),
}
#: A dimension that could be channels is taken for them up to this size.
MOST_CHANNELS = 64
#: Largest standard deviation of a channel; that of pixels from 0 to 1 is at most 0.5.
MOST_DEVIATION = 1e3
#: The mean of a channel that is white throughout may be above 1 by a rounding.
_ROUNDING = 1e-6
#: Rows that the mean and the standard deviation are taken from, at most, evenly spaced.
STATISTICS_ROWS = 20_000
#: Values that statistics are taken of at a time.
_AT_ONCE = 1 << 18


def is_eight_bit(pixels: NDArray[np.generic]) -> TypeGuard[NDArray[np.uint8]]:
    """Whether ``pixels`` are uint8."""
    return pixels.dtype == np.uint8


def require_pixels(pixels: NDArray[np.generic]) -> None:
    """Check the type of ``pixels``.

    Raises:
        DataError: it is none of `DTYPES`.
    """
    if pixels.dtype not in DTYPES:
        names = ", ".join(dtype.name for dtype in DTYPES)
        raise DataError(
            f"Images are of type {pixels.dtype}; a table holds {names}.",
            "Convert them to one of these without losing values: float32 for 64-bit floats, uint16 "
            "or int16 for whole numbers within their range.",
        )


def channels_first(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Images as N x C x H x W, or volumes as N x C x D x H x W.

    Args:
        pixels: (N, H, W), (N, C, H, W), (N, H, W, C), (N, C, D, H, W) or (N, D, H, W, C). The
            channels are where there are 1 or 3; else where there are fewest, and at most
            `MOST_CHANNELS`.

    Raises:
        DataError: none of these shapes, or one that can be read in two ways.
    """
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim in (4, 5):
        first, last = pixels.shape[1], pixels.shape[-1]
        usual = first in (1, 3), last in (1, 3)
        fewest = first < min(pixels.shape[2:]), last < min(pixels.shape[1:-1])
        if first <= MOST_CHANNELS and (usual[0] or (fewest[0] and not usual[1])):
            return pixels
        if last <= MOST_CHANNELS and (usual[1] or fewest[1]):
            return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))
    raise DataError(
        f"It is unknown which dimension of images of shape {pixels.shape} holds the channels.",
        "Stack images of one size: N x H x W, N x C x H x W or N x H x W x C; volumes as "
        "N x C x D x H x W. Of more than one channel there must be fewer than pixels a side.",
    )


def require_range(value_range: ValueRange, dtype: np.dtype[np.generic]) -> None:
    """Check that ``value_range`` is a range of pixels of type ``dtype``.

    Raises:
        DataError: it is not.
    """
    low, high = value_range
    least, most = _EXTREMES[dtype]
    if not least <= low < high <= most:
        raise DataError(
            f"Pixels of type {dtype} cannot range from {low:g} to {high:g}.",
            f"Give a range of values between {least:g} and {most:g}.",
        )
    first, last = pixel_ends(value_range, dtype)
    if not first < last:
        raise DataError(
            f"There are no two values of type {dtype} between {low:g} and {high:g}.",
            "Give a wider range.",
        )


def pixel_ends(value_range: ValueRange, dtype: np.dtype[np.generic]) -> ValueRange:
    """The lowest and the highest pixel of type ``dtype`` within ``value_range``."""
    low, high = value_range
    if dtype.kind != "f":
        return float(math.ceil(low)), float(math.floor(high))
    first, last = np.float32(low), np.float32(high)
    if float(first) < low:
        first = np.nextafter(first, np.float32(np.inf))
    if float(last) > high:
        last = np.nextafter(last, np.float32(-np.inf))
    return float(first), float(last)


def clip_pixels(pixels: NDArray[np.generic], value_range: ValueRange) -> NDArray[np.generic]:
    """``pixels``, with those beyond ``value_range`` set to the nearer end; not a copy if none are.

    Raises:
        DataError: as `require_range`, or a pixel is NaN.
    """
    require_range(value_range, pixels.dtype)
    low, high = np.array(pixel_ends(value_range, pixels.dtype)).astype(pixels.dtype)
    if not pixels.size or (bool(pixels.min() >= low) and bool(pixels.max() <= high)):
        return pixels
    if np.isnan(pixels.min()):
        raise _not_finite()
    return np.asarray(np.clip(pixels, low, high))


def convert_pixels(
    pixels: NDArray[np.generic],
    value_range: ValueRange,
    dtype: np.dtype[np.generic],
    new_range: ValueRange,
) -> NDArray[np.generic]:
    """``pixels`` from ``value_range`` as pixels of type ``dtype`` from ``new_range``.

    Pixels beyond ``value_range`` become those of its nearer end.
    """
    (low, high), (new_low, new_high) = value_range, new_range
    out = np.empty(pixels.shape, dtype)
    rows = max(1, _AT_ONCE // math.prod(pixels.shape[1:]))
    for start in range(0, len(pixels), rows):
        units = (pixels[start : start + rows].astype(np.float64) - low) / (high - low)
        values = new_low + units * (new_high - new_low)
        values = values if dtype.kind == "f" else np.rint(values)
        out[start : start + rows] = np.clip(values, *pixel_ends(new_range, dtype))
    return out


def extremes(pixels: NDArray[np.generic]) -> ValueRange:
    """The lowest and the highest of ``pixels`` (N, C, ...), of which there is at least one."""
    found = np.array([[block.min(), block.max()] for block in _blocks(pixels)], np.float64)
    return float(found[:, 0].min()), float(found[:, 1].max())


def full_range(pixels: NDArray[np.generic]) -> ValueRange:
    """The range of ``pixels``: 0 to 255 for 8-bit pixels, else their lowest and highest value.

    Raises:
        DataError: there are no pixels, or one is not a finite number.
    """
    if pixels.dtype == np.uint8:
        return EIGHT_BIT
    if not pixels.size:
        raise DataError("There are no images.", "Name a source that holds at least one.")
    low, high = extremes(pixels)
    if not np.isfinite([low, high]).all():
        raise _not_finite()
    # Of one value, nothing has to be told apart.
    return low, high if high > low else low + 1


def channel_moments(
    pixels: NDArray[np.generic], value_range: ValueRange
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of ``pixels`` (N, C, ...), in the unit range.

    They are taken from at most `STATISTICS_ROWS` rows, evenly spaced. A channel of one value gets
    the deviation 1.

    Raises:
        DataError: there are no images.
    """
    if len(pixels) == 0:
        raise DataError("There are no images.", "Name a source that holds at least one.")
    low, high = value_range
    sample = pixels[:: -(-len(pixels) // STATISTICS_ROWS)]
    sums = _byte_sums(sample) if pixels.dtype == np.uint8 else _float_sums(sample, low)
    mean, square = sums / (len(sample) * math.prod(pixels.shape[2:]))
    if pixels.dtype == np.uint8:
        # Sums of whole numbers are exact; that of a difference to a float would not be.
        mean, square = mean - low, square - 2 * low * mean + low**2
    mean, square = mean / (high - low), square / (high - low) ** 2
    std = np.sqrt(np.maximum(square - mean**2, 0))
    # A channel of one value has no spread: any positive deviation leaves it even.
    return tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist())


def _blocks(pixels: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """``pixels`` (N, C, ...), few values at a time, each with its channels first."""
    rows = max(1, _AT_ONCE // math.prod(pixels.shape[1:]))
    for start in range(0, len(pixels), rows):
        yield pixels[start : start + rows].swapaxes(0, 1)


def _byte_sums(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """(2, C) sums of the values and of their squares, by counts of the 256 values."""
    counts = np.zeros((pixels.shape[1], 256), np.int64)
    for block in _blocks(pixels):
        for channel, values in enumerate(block):
            counts[channel] += np.bincount(values.reshape(-1), minlength=256)
    levels = np.arange(256)
    return np.stack([counts @ levels, counts @ levels**2]).astype(np.float64)


def _float_sums(pixels: NDArray[np.generic], low: float) -> NDArray[np.float64]:
    """(2, C) sums of the values less ``low``, and of their squares."""
    sums = np.zeros((2, pixels.shape[1]))
    for block in _blocks(pixels):
        values = block.reshape(len(block), -1).astype(np.float64) - low
        sums += values.sum(axis=1), np.square(values, out=values).sum(axis=1)
    return sums


def _not_finite() -> DataError:
    return DataError(
        "Some pixels are not finite numbers.",
        "Replace NaN and infinite pixels, for example by the value of the background.",
    )


def require_moments(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Check the mean and the standard deviation of each of ``channels``.

    Raises:
        DataError: there are more or fewer, one is not finite, a mean is not from 0 to 1, or a
            deviation is not positive or above `MOST_DEVIATION`.
    """
    moments = np.asarray([*mean, *std], dtype=np.float64)
    if moments.shape != (2 * channels,) or not np.isfinite(moments).all():
        raise DataError(
            "Mean and standard deviation need one value a channel, finite, for "
            f"{channels} channel{'s' * (channels != 1)}.",
            "Leave them out to have them measured.",
        )
    impossible = [each for each in mean if not -_ROUNDING <= each <= 1 + _ROUNDING]
    if impossible:
        raise DataError(
            f"A mean of {impossible[0]:g} is impossible for pixels from 0 to 1.",
            "Give it in this unit, divided by 255 for 8-bit pixels, or leave it out to have it "
            "measured.",
        )
    if min(std) <= 0:
        raise DataError(
            "A standard deviation is not positive.", "Leave it out to have it measured."
        )
    if max(std) > MOST_DEVIATION:
        raise DataError(
            f"A standard deviation of {max(std):g} is too large for pixels from 0 to 1.",
            f"Give at most {MOST_DEVIATION:g}, or leave it out to have it measured.",
        )

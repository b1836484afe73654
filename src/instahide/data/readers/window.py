"""Windows: the range of values that pixels are clipped to."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instahide.data.cache import cache_folder, memory_mapped
from instahide.data.pixels import Pixels, ValueRange, clip_pixels, is_eight_bit
from instahide.data.table import ImageTable
from instahide.errors import DataError
from instahide.utils.number_text import plain_float

#: A range of pixel values; percentiles of all pixels, as ``("1%", "99%")``; the range that DICOM
#: files state; or all values that there are.
Window: TypeAlias = Literal["full", "file"] | tuple[float, float] | tuple[str, str]

_HALF = 1 << 16
#: Values that are counted at a time.
_AT_ONCE = 1 << 20


def read_window(text: str) -> Window:
    """The window that is typed as ``full``, ``file``, ``LO,HI`` or ``1%,99%``.

    Raises:
        DataError: it is none of these.
    """
    if text in ("full", "file"):
        return "full" if text == "full" else "file"
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise _unknown(text)
    if all(part.endswith("%") for part in parts):
        return require_window((parts[0], parts[1]))
    try:
        return require_window((plain_float(parts[0]), plain_float(parts[1])))
    except ValueError:
        raise _unknown(text) from None


def require_window(window: Window) -> Window:
    """The ``window``, if it is one.

    Raises:
        DataError: it is not, or its first value is not below the second.
    """
    if isinstance(window, str):
        if window not in ("full", "file"):
            raise _unknown(window)
        return window
    percentages = _percentages(window)
    try:
        low, high = percentages or (_bound(window[0]), _bound(window[1]))
    except (ValueError, TypeError, IndexError):
        raise _unknown(window) from None
    if not np.isfinite([low, high]).all() or not low < high or len(window) != 2:
        raise _unknown(window)
    if percentages and not 0 <= low < high <= 100:
        raise _unknown(window)
    return window


def is_stated(window: Window, pixels: Pixels) -> bool:
    """Whether the range that ``window`` gives ``pixels`` is one of the scanner, not of the images.

    Ranges that are measured differ from image set to image set, and must not be taken for one
    unit. The full range of 8-bit pixels is that of their type.
    """
    if window == "full":
        return is_eight_bit(pixels)
    return window == "file" or not isinstance(window[0], str)


def windowed(pixels: Pixels, window: ValueRange, folder: Path) -> Pixels:
    """``pixels`` (N, ...) clipped to ``window``; the same if none are beyond.

    Args:
        pixels: the pixels.
        window: the range.
        folder: where a memory-mapped copy is stored, if one is needed.

    Raises:
        DataError: the type of the pixels does not have the range, or a pixel is NaN.
    """
    if all(clip_pixels(row, window) is row for row in pixels):
        return pixels

    def rows() -> Generator[Pixels, None, None]:
        for row in pixels:
            yield clip_pixels(row, window)

    return memory_mapped(rows(), folder)


def clipped(table: ImageTable, value_range: ValueRange) -> ImageTable:
    """``table`` with every pixel in ``value_range``; a memory-mapped table stays one."""
    mapped = isinstance(table.pixels, np.memmap)
    pixels = (
        windowed(table.pixels, value_range, cache_folder())
        if mapped
        else clip_pixels(table.pixels, value_range)
    )
    return table.with_pixels(pixels, value_range)


def percentile_range(pixels: Pixels, window: tuple[str, str]) -> ValueRange:
    """The two percentiles of all ``pixels``, as `numpy.percentile` with ``method="lower"``.

    They are found from counts of values, without all pixels in memory.

    Raises:
        DataError: the percentiles are equal, or a pixel is not finite.
    """
    first, second = _percentages(window) or (0.0, 100.0)
    low, high = (_percentile(pixels, share) for share in (first, second))
    if not np.isfinite([low, high]).all():
        raise DataError(
            "Some pixels are not finite numbers.",
            "Replace NaN and infinite pixels, for example by the value of the background.",
        )
    if not low < high:
        raise DataError(
            f"The percentiles {window[0]} and {window[1]} of all pixels are both {low:g}.",
            "Use percentiles that lie further apart, or a range of values.",
        )
    return low, high


def _bound(value: object) -> float:
    return plain_float(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]


def _percentages(window: tuple[object, object]) -> tuple[float, float] | None:
    if not all(isinstance(part, str) and part.endswith("%") for part in window):
        return None
    try:
        low, high = (plain_float(str(part)[:-1]) for part in window)
    except ValueError:
        raise _unknown(window) from None
    return low, high


def _percentile(pixels: Pixels, share: float) -> float:
    """The value with ``share`` percent of all values below it."""
    rank = int(np.floor((pixels.size - 1) * (share / 100)))
    counts = np.zeros(_HALF, np.int64)
    for order in _blocks(pixels):
        counts += np.bincount(order >> 16, minlength=_HALF)
    high, below = _ranked(counts, rank)
    counts[:] = 0
    for order in _blocks(pixels):
        counts += np.bincount(order[order >> 16 == high] & (_HALF - 1), minlength=_HALF)
    low, _ = _ranked(counts, rank - below)
    return _value(high << 16 | low, pixels.dtype)


def _blocks(pixels: Pixels) -> Iterator[NDArray[np.int64]]:
    """`_ordered` values, few at a time."""
    rows = max(1, _AT_ONCE // math.prod(pixels.shape[1:]))
    for start in range(0, len(pixels), rows):
        yield _ordered(pixels[start : start + rows])


def _ordered(values: Pixels) -> NDArray[np.int64]:
    """Numbers (n,) below 2^32 in the same order as ``values``."""
    flat = values.reshape(-1)
    if flat.dtype.kind != "f":
        return flat.astype(np.int64) + (1 << 31)
    bits = np.ascontiguousarray(flat, np.float32).view(np.uint32).astype(np.int64)
    return np.where(bits >> 31 == 1, (1 << 32) - 1 - bits, bits + (1 << 31))


def _value(order: int, dtype: np.dtype[np.generic]) -> float:
    if dtype.kind != "f":
        return float(order - (1 << 31))
    bits = order ^ (1 << 31) if order >> 31 else order ^ 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))


def _ranked(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The number that the value of ``rank`` has, and how many values have lower ones."""
    ends = np.cumsum(counts)
    found = int(np.searchsorted(ends, rank, side="right"))
    return found, int(ends[found] - counts[found])


def _unknown(window: object) -> DataError:
    return DataError(
        f"{window!r} is no window.",
        "Use `window='full'`, `window='file'`, two values as in (-1000, 400), or two percentiles "
        "as in ('1%', '99%'); the first below the second.",
    )

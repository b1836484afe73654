"""What every reader of image files returns: pixels, their hashes and the stated window."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from instahide.data.duplicates.content_hash import content_hashes
from instahide.data.duplicates.source_hash import UNKNOWN
from instahide.data.pixels import DTYPES, Pixels, ValueRange
from instahide.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Whole numbers up to this size are exact in float32.
_EXACT = 1 << 24


class Decoded(NamedTuple):
    """A decoded image or volume.

    Attributes:
        pixels: (C, H, W) or (C, D, H, W), of a type that tables hold.
        further: whether the file has further frames or pages, which were not read.
        sources: `FILE_HASHES` concatenated hashes of the image before resizing.
        window: the range of values to show that the file states, if it states one.
    """

    pixels: Pixels
    further: bool
    sources: bytes
    window: ValueRange | None = None


def kept_values(
    pixels: Pixels,
    size: int | None,
    *,
    further: bool = False,
    window: ValueRange | None = None,
) -> Decoded:
    """``pixels`` (C, ..., H, W) as `Decoded`, hashed before they are resized to ``size``.

    Raises:
        ValueError: there are no pixels, or they have a type that a table cannot hold.
    """
    if not pixels.size:
        raise ValueError("it has no pixels")
    pixels = np.ascontiguousarray(as_table_type(pixels))
    # The bytes of a hash are those of two little-endian words.
    native = content_hashes(pixels[None]).astype("<u8").tobytes()
    resized = pixels if size is None else resize(pixels, size)
    return Decoded(resized, further, native + UNKNOWN, window)


def as_table_type(values: Pixels) -> Pixels:
    """``values`` in a type of `DTYPES`, without losing any of a whole number.

    8-bit signed numbers become int16, 32- and 64-bit numbers float32, to which floats are rounded.

    Raises:
        ValueError: a whole number is too large for float32, or the values are no numbers.
    """
    native = values.dtype.newbyteorder("=")
    if native in DTYPES:
        return values.astype(native, copy=False)
    if native == np.int8 or native == np.bool:
        return values.astype(np.int16 if native == np.int8 else np.uint8)
    if native.kind in "iu":
        if int(values.min()) < -_EXACT or int(values.max()) > _EXACT:
            raise ValueError("its whole numbers are too large for 32-bit floats")
    elif native.kind != "f":
        raise ValueError(f"its pixels are of type {native}, which are no plain numbers")
    return values.astype(np.float32)


def rescaled(stored: Pixels, slope: float, intercept: float, lowest: int, highest: int) -> Pixels:
    """``stored * slope + intercept``: int16 where both are whole and the range fits, else float32.

    Args:
        stored: the values in the file.
        slope: the factor.
        intercept: what is added.
        lowest: the lowest value that could be stored, whether or not it is.
        highest: the highest.

    Raises:
        ValueError: slope or intercept is not a finite number, or the slope is 0.
    """
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise ValueError("its rescale slope is 0, or slope or intercept is not a finite number")
    if slope == 1 and intercept == 0:
        return as_table_type(stored)
    values = stored.astype(np.float64) * slope + intercept
    ends = lowest * slope + intercept, highest * slope + intercept
    whole = float(slope).is_integer() and float(intercept).is_integer()
    if whole and stored.dtype.kind in "iu" and -(1 << 15) <= min(ends) <= max(ends) < 1 << 15:
        return values.astype(np.int16)
    return values.astype(np.float32)


def resize_and_crop(image: Image, size: int) -> Image:
    """``image`` with its short side resized to ``size`` pixels and its long side cropped."""
    from PIL import Image as Images
    from PIL import ImageOps

    return ImageOps.fit(image, (size, size), Images.Resampling.LANCZOS)


def resize(pixels: Pixels, size: int) -> Pixels:
    """Every plane of ``pixels`` (..., H, W) as ``size`` x ``size``, by `resize_and_crop`."""
    from PIL import Image

    out = np.empty((*pixels.shape[:-2], size, size), pixels.dtype)
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    for plane, target in zip(planes, out.reshape(-1, size, size), strict=True):
        if plane.dtype == np.uint8:
            target[:] = resize_and_crop(Image.fromarray(plane), size)
            continue
        # Lanczos passes beyond the values at edges: a pixel stays within those of its image.
        values = np.asarray(resize_and_crop(Image.fromarray(plane.astype(np.float32)), size))
        values = np.clip(values, plane.min(), plane.max())
        target[:] = values if plane.dtype.kind == "f" else np.rint(values)
    return out


def unreadable(name: str, reason: str) -> DataError:
    """The error for the image file ``name``."""
    return DataError(
        f"{name} is not a readable image ({reason}).",
        "Replace or remove the file, or use `skip_bad=True` to leave it out.",
    )

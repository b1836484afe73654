"""Conversion of images of any mode of Pillow to grey or RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

#: The background of transparent pixels.
BACKGROUND = (255, 255, 255)
#: Numbers of bits out of 16 that cameras and scanners use.
DEPTHS = (8, 10, 12, 14, 16)
#: Tags of a TIFF: bits of each sample; and what the samples mean, 0 being that white is 0.
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_ORIENTATION = 0x0112
_SIXTEEN_BITS = (1 << 16) - 1
_GREY = ("1", "L", "LA", "La")


def is_pil_image(value: object) -> TypeGuard[Image]:
    """Whether ``value`` is an image of Pillow, which need not be imported to know."""
    return hasattr(value, "getbands")


def eight_bit(image: Image) -> Image:
    """The image in mode L if it is grey, else RGB, on a white `BACKGROUND`.

    Raises:
        ValueError: as for `to_grey_or_rgb`, `sixteen_bit_grey` and `high_bytes`.
    """
    from PIL import Image as Images

    deep = sixteen_bit_grey(image)
    return to_grey_or_rgb(image) if deep is None else Images.fromarray(high_bytes(deep))


def high_bytes(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The high byte of each of the ``values`` of an image.

    Raises:
        ValueError: the image uses only a part of the 16 bits, so that it would become dark.
    """
    highest = int(values.max(initial=0))
    depth = next(bits for bits in DEPTHS if highest < 1 << bits)
    if highest and depth < 16:
        raise ValueError(
            f"16-bit pixels of which only {depth} bits are used; convert it to 8 bits a channel"
        )
    return (values >> 8).astype(np.uint8)


def sixteen_bit_grey(image: Image) -> NDArray[np.uint16] | None:
    """The pixels (H, W) of a grey image of 16 bits; None for other images.

    Raises:
        ValueError: some pixels are transparent, or 0 is white.
    """
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")):
        return None
    if "transparency" in image.info:
        raise ValueError("16-bit pixels with transparency; save it without")
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise ValueError("16-bit pixels of which 0 is white; invert it and save it as such")
    return np.asarray(image).astype(np.uint16)


def stated_maximum(image: Image) -> int:
    """The largest value that an image of 16 bits can have, before it is decoded.

    Pillow stretches the values of a PGM file to 16 bits, from the maximum that the file states.
    """
    for codec, _, _, arguments in getattr(image, "tile", ()):
        if codec.startswith("ppm") and isinstance(arguments, tuple):
            return int(arguments[-1])
    return _SIXTEEN_BITS


def as_stated(values: NDArray[np.uint16], maximum: int) -> NDArray[np.uint16]:
    """The ``values`` of a file, which Pillow has stretched from ``maximum`` to 16 bits."""
    if maximum == _SIXTEEN_BITS:
        return values
    return np.asarray(np.rint(values * (maximum / _SIXTEEN_BITS)), np.uint16)


def to_grey_or_rgb(image: Image) -> Image:
    """An image of 8 bits in mode L if it is grey, else RGB, on a white `BACKGROUND`.

    Raises:
        ValueError: pixels have 32 bits or 16-bit colors, whose range is unknown.
    """
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels; convert it to 8 bits a channel first")
    if _sixteen_bit_colour(image):
        raise ValueError(
            "16 bits a channel in colour; save it as a TIFF, or convert it to 8 bits a channel"
        )
    grey = image.mode in _GREY
    if image.has_transparency_data:
        return _composite_on_white(image, grey)
    return image.convert("L" if grey else "RGB")


def apply_exif_orientation(converted: Image, source: Image) -> Image:
    """``converted``, rotated according to the EXIF data of its decoded ``source``."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(source.getexif().get(_ORIENTATION, 1))
    return converted if turn is None else converted.transpose(turn)


def _sixteen_bit_colour(image: Image) -> bool:
    """Whether Pillow would keep only the high byte of every value, which may be dark."""
    bits = getattr(image, "tag_v2", {}).get(_BITS, ())
    if max(bits if isinstance(bits, tuple) else (bits,), default=0) > 8:
        return True
    for codec, _, _, arguments in getattr(image, "tile", ()):
        mode, *more = arguments if isinstance(arguments, tuple) else (arguments,)
        # BGR;16 has 16 bits per pixel, not per channel.
        if isinstance(mode, str) and ";16" in mode and not mode.startswith("BGR"):
            return True
        if codec.startswith("ppm") and any(highest > 255 for highest in more):
            return True
    return False


def _composite_on_white(image: Image, grey: bool) -> Image:
    from PIL import Image as Images

    layered = image.convert("RGBA")
    below = Images.new("RGBA", layered.size, (*BACKGROUND, 255))
    return Images.alpha_composite(below, layered).convert("L" if grey else "RGB")

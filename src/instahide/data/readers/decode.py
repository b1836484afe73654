"""Image files to 8-bit pixels, trusting no file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.source_hash import UNKNOWN, jpeg_hash, pixels_hash
from instahide.data.readers.color_modes import apply_exif_orientation, to_grey_or_rgb
from instahide.data.readers.image_file import has_more_frames, open_image_file
from instahide.data.readers.size_limits import failure_reason
from instahide.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


class Decoded(NamedTuple):
    """An image file as it was decoded.

    Attributes:
        pixels: (H, W) if it is grey, else (H, W, 3).
        further: whether the file holds more frames or pages, which were not read.
        depth: bits that are used of 16-bit pixels; 0 where pixels have 8 bits.
        sources: `FILE_HASHES` hashes, one after the other, of the image before it was resized.
    """

    pixels: NDArray[np.uint8]
    further: bool
    depth: int
    sources: bytes


def decode(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    """The upright pixels of an image file: (H, W) if it is grey, else (H, W, 3).

    ``size`` resizes the short side to that many pixels and crops the centre square. Transparent
    pixels are laid upon white; of several frames or pages the first is read. 16-bit pixels must use
    their whole range; `decode_file` says which part they use.

    Raises:
        InstaHideError: truncated, no image, not 8 or 16 bits a channel, or too big to be honest.
    """
    decoded = decode_file(path, size, hashed=False)
    if decoded.depth not in (0, 16):
        raise _unreadable(path, f"of its 16-bit pixels only {decoded.depth} bits are used")
    return decoded.pixels


def decode_file(path: Path, size: int | None = None, *, hashed: bool = True) -> Decoded:
    """As `decode`, with what else a set of files must know of each; hashes only if ``hashed``."""
    try:
        with open_image_file(path) as image:
            further, whole = has_more_frames(image), image.size
            data = _data_hash(image) if hashed else UNKNOWN
            if size is not None:
                # A JPEG decodes several times faster at a half, quarter or eighth of its size.
                image.draft(None, (2 * size, 2 * size))
            reduced = image.size != whole
            converted, depth = to_grey_or_rgb(image)
            turned = apply_exif_orientation(converted, image)
        native = pixels_hash(turned) if hashed and not reduced else UNKNOWN
        pixels = np.asarray(turned if size is None else resize_and_crop(turned, size))
        return Decoded(pixels, further, depth, native + data)
    except Exception as error:  # decoders raise almost anything when a file lies about itself
        raise _unreadable(path, failure_reason(error)) from error


def _data_hash(image: Image) -> bytes:
    """The hash of the data of a JPEG that is open; other formats are known by their pixels."""
    file = getattr(image, "fp", None)
    return jpeg_hash(file) if file and image.format in ("JPEG", "MPO") else UNKNOWN


def resize_and_crop(image: Image, size: int) -> Image:
    """The short side resized to ``size`` pixels, the long one cropped to its centre."""
    from PIL import Image as Images
    from PIL import ImageOps

    return ImageOps.fit(image, (size, size), Images.Resampling.LANCZOS)


def resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(N, C, H, W) -> (N, C, size, size), as `resize_and_crop` does it, C being 1 or 3."""
    from PIL import Image

    out = np.empty((*pixels.shape[:2], size, size), np.uint8)
    for row, target in zip(pixels, out, strict=True):
        image = Image.fromarray(row[0] if len(row) == 1 else row.transpose(1, 2, 0))
        target[:] = np.moveaxis(np.atleast_3d(np.asarray(resize_and_crop(image, size))), 2, 0)
    return out


def require_one_depth(depths: Mapping[int, str]) -> None:
    """Check that all 16-bit images of a set use the same number of bits.

    Args:
        depths: numbers of bits, each with a file that uses so many.

    Raises:
        DataError: they do not, so that some images would become too dark or too bright.
    """
    if len(depths) > 1:
        uses = ", ".join(f"{name} uses {depth}" for depth, name in sorted(depths.items()))
        raise DataError(
            f"16-bit images differ in the bits that they use ({uses}), so that their common range "
            "is not known.",
            "Convert them to 8 bits a channel, all by the same rule.",
        )


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is not a readable image ({reason}).",
        "Replace or remove the file, or use `skip_bad=True` to leave it out.",
    )

"""Opens and decodes untrusted image files by Pillow: PNG, JPEG and other common formats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.source_hash import UNKNOWN, jpeg_hash, pixels_hash
from instahide.data.readers.color_modes import (
    apply_exif_orientation,
    as_stated,
    high_bytes,
    sixteen_bit_grey,
    stated_maximum,
    to_grey_or_rgb,
)
from instahide.data.readers.decoded import Decoded, kept_values, resize_and_crop, unreadable
from instahide.data.readers.size_limits import require_plausible_size
from instahide.errors import failure_reason
from instahide.utils.atomic_write import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

#: Formats that Pillow may open, whatever the file name. Others run programs (EPS runs Ghostscript)
#: or are seldom tested.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM")
#: The names of files in these formats.
IMAGE_SUFFIXES = frozenset(
    {
        ".apng", ".bmp", ".dib", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm",
        ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip

#: Pixels that a tile of a TIFF may always have, whatever the size of the image.
_MOST_TILE = 1 << 20
_TILE_WIDTH, _TILE_LENGTH = 322, 323


@contextmanager
def open_image_file(path: Path) -> Iterator[Image]:
    """Open the image in ``path`` without decoding it.

    Raises:
        OSError: ``path`` is not a regular file.
        ValueError: the format is not in `FORMATS`, or there are too many pixels for this library or
            for the size of the file.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on, so that missing parts would be filled with "
            "grey; set it to False"
        )
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        _require_plausible_image(*_webp_canvas(file), 4, size)
        try:
            whole = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"it is none of {', '.join(FORMATS)}") from None
        with whole as image:
            _require_plausible_image(image.width, image.height, _bytes_a_pixel(image), size)
            _require_small_tiles(image)
            yield image


def has_more_frames(image: Image) -> bool:
    """Whether the file of ``image`` has further frames or pages."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # A damaged further frame does not matter.
        return True


def _require_plausible_image(width: int, height: int, bytes_a_pixel: int, file_bytes: int) -> None:
    from PIL import Image

    if width * height > (Image.MAX_IMAGE_PIXELS or float("inf")):
        raise ValueError(f"{width} x {height} pixels may be a bomb")
    require_plausible_size(width * height * bytes_a_pixel, file_bytes)


def _bytes_a_pixel(image: Image) -> int:
    """Bytes per pixel in Pillow's memory for the mode of ``image``."""
    if image.mode.startswith("I;16"):
        return 2
    return 1 if image.mode in ("1", "L") and not image.has_transparency_data else 4


def _webp_canvas(file: BinaryIO) -> tuple[int, int]:
    """Width and height of a WebP file, whose canvas is allocated on opening."""
    head = file.read(30)
    file.seek(0)
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return 0, 0
    if head[12:16] == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width, height


def _require_small_tiles(image: Image) -> None:
    """Check the tiles of a TIFF, which are decoded as a whole even if the image is small."""
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if not (isinstance(width, int) and isinstance(length, int)):
        raise ValueError("its tiles have no size")
    if width * length > max(_MOST_TILE, 4 * image.width * image.height):
        raise ValueError(f"tiles of {width} x {length} pixels may be a bomb")


def decode(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    """The upright pixels of an image file in 8 bits: (H, W) if it is grey, else (H, W, 3).

    ``size`` resizes the short side to that many pixels and crops the center square. Transparent
    pixels get a white background; only the first frame or page is read. 16-bit pixels must use
    their whole range, and lose their low byte.

    Raises:
        InstaHideError: the file is truncated, is not an image, does not have 8 or 16 bits per
            channel, or is implausibly large.
    """
    pixels = decode_file(path, size, hashed=False).pixels
    if pixels.dtype == np.uint16:
        try:
            pixels = high_bytes(pixels.astype(np.uint16, copy=False))
        except ValueError as error:
            raise unreadable(str(path), str(error)) from error
    planes = pixels.astype(np.uint8, copy=False)
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


def decode_file(path: Path, size: int | None = None, *, hashed: bool = True) -> Decoded:
    """As `decode`, but 16-bit grey pixels are kept; with the other fields of `Decoded`.

    Args:
        path: the file.
        size: as for `decode`.
        hashed: compute the hashes.

    Raises:
        InstaHideError: as `decode`, except that 16-bit pixels may use any part of their range.
    """
    try:
        with open_image_file(path) as image:
            return _decoded(image, size, hashed)
    except Exception as error:  # decoders raise many kinds of errors on invalid files
        raise unreadable(str(path), failure_reason(error)) from error


def _decoded(image: Image, size: int | None, hashed: bool) -> Decoded:
    from PIL import Image as Images

    further, whole = has_more_frames(image), image.size
    data = _data_hash(image) if hashed else UNKNOWN
    if size is not None:
        # A JPEG decodes several times faster at 1/2, 1/4 or 1/8 of its size.
        image.draft(None, (2 * size, 2 * size))
    reduced = image.size != whole
    maximum = stated_maximum(image)
    deep = sixteen_bit_grey(image)
    if deep is not None:
        upright = np.asarray(apply_exif_orientation(Images.fromarray(deep), image))
        found = kept_values(as_stated(upright, maximum)[None], size, further=further)
        eight_bit = _eight_bit_hash(upright) if hashed else UNKNOWN
        return found._replace(sources=found.sources[: len(UNKNOWN)] + eight_bit)
    turned = apply_exif_orientation(to_grey_or_rgb(image), image)
    native = pixels_hash(turned) if hashed and not reduced else UNKNOWN
    eight = np.asarray(turned if size is None else resize_and_crop(turned, size))
    return Decoded(np.atleast_3d(eight).transpose(2, 0, 1), further, native + data)


def _eight_bit_hash(pixels: NDArray[np.uint16]) -> bytes:
    """The hash of the high bytes, which is what a data set of 8-bit images makes of such a file."""
    from PIL import Image

    try:
        return pixels_hash(Image.fromarray(high_bytes(pixels)))
    except ValueError:  # It uses only a part of the 16 bits: no data set takes it.
        return UNKNOWN


def _data_hash(image: Image) -> bytes:
    """The hash of the data of an open JPEG; other formats are hashed by their pixels."""
    file = getattr(image, "fp", None)
    return jpeg_hash(file) if file and image.format in ("JPEG", "MPO") else UNKNOWN

"""Opens image files of the formats that are read here, and decodes them to 8-bit pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.source_hash import UNKNOWN, jpeg_hash, pixels_hash
from instahide.data.readers.color_modes import apply_exif_orientation, to_grey_or_rgb
from instahide.data.readers.size_limits import failure_reason, require_plausible_size
from instahide.errors import DataError
from instahide.utils.atomic_write import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

#: What Pillow may open, whatever a file is called. It knows other formats, some of which run
#: programs (EPS runs Ghostscript) or are seldom tested.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM")
#: The names of files in these formats.
IMAGE_SUFFIXES = frozenset(
    {
        ".apng", ".bmp", ".dib", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm",
        ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip

#: A tile of a TIFF may have so many pixels in an image of any size.
_MOST_TILE = 1 << 20
_TILE_WIDTH, _TILE_LENGTH = 322, 323


@contextmanager
def open_image_file(path: Path) -> Iterator[Image]:
    """The image in ``path``, of which nothing is decoded yet.

    Raises:
        OSError: no regular file.
        ValueError: it is in none of `FORMATS`, or has too many pixels for this library or for a
            file of its size.
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
    """Whether the file of ``image`` holds more frames or pages than the one that is read."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # The next frame is damaged, which does not matter to the first.
        return True


def _require_plausible_image(width: int, height: int, bytes_a_pixel: int, file_bytes: int) -> None:
    from PIL import Image

    if width * height > (Image.MAX_IMAGE_PIXELS or float("inf")):
        raise ValueError(f"{width} x {height} pixels may be a bomb")
    require_plausible_size(width * height * bytes_a_pixel, file_bytes)


def _bytes_a_pixel(image: Image) -> int:
    """What Pillow takes for a pixel when it is grey or RGB, whatever it takes in the file."""
    if image.mode.startswith("I;16"):
        return 2
    return 1 if image.mode in ("1", "L") and not image.has_transparency_data else 4


def _webp_canvas(file: BinaryIO) -> tuple[int, int]:
    """Width and height of a WebP file, for whose canvas memory is taken when it is opened."""
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
    """Tiles of a TIFF are decoded whole, however small the image is."""
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if not (isinstance(width, int) and isinstance(length, int)):
        raise ValueError("its tiles have no size")
    if width * length > max(_MOST_TILE, 4 * image.width * image.height):
        raise ValueError(f"tiles of {width} x {length} pixels may be a bomb")


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

"""Opens image files of the formats that are read here, and refuses what is too large to decode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from instahide.data.readers.size_limits import require_plausible_size
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

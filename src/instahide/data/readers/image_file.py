"""Opens and decodes untrusted image files of the supported formats to 8-bit pixels."""

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


if TYPE_CHECKING:
    from PIL.Image import Image


class Decoded(NamedTuple):
    """A decoded image file.

    Attributes:
        pixels: (H, W) if it is grey, else (H, W, 3).
        further: whether the file has further frames or pages, which were not read.
        depth: used bits of 16-bit pixels; 0 if pixels have 8 bits.
        sources: `FILE_HASHES` concatenated hashes of the image before resizing.
    """

    pixels: NDArray[np.uint8]
    further: bool
    depth: int
    sources: bytes


def decode(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    """The upright pixels of an image file: (H, W) if it is grey, else (H, W, 3).

    ``size`` resizes the short side to that many pixels and crops the center square. Transparent
    pixels get a white background; only the first frame or page is read. 16-bit pixels must use
    their whole range; `decode_file` returns the part that they use.

    Raises:
        InstaHideError: the file is truncated, is not an image, does not have 8 or 16 bits per
            channel, or is implausibly large.
    """
    decoded = decode_file(path, size, hashed=False)
    if decoded.depth not in (0, 16):
        raise _unreadable(path, f"of its 16-bit pixels only {decoded.depth} bits are used")
    return decoded.pixels


def decode_file(path: Path, size: int | None = None, *, hashed: bool = True) -> Decoded:
    """As `decode`, with the other fields of `Decoded`; hashes only if ``hashed``."""
    try:
        with open_image_file(path) as image:
            further, whole = has_more_frames(image), image.size
            data = _data_hash(image) if hashed else UNKNOWN
            if size is not None:
                # A JPEG decodes several times faster at 1/2, 1/4 or 1/8 of its size.
                image.draft(None, (2 * size, 2 * size))
            reduced = image.size != whole
            converted, depth = to_grey_or_rgb(image)
            upright = apply_exif_orientation(converted, image)
        native = pixels_hash(upright) if hashed and not reduced else UNKNOWN
        pixels = np.asarray(upright if size is None else resize_and_crop(upright, size))
        return Decoded(pixels, further, depth, native + data)
    except Exception as error:  # decoders raise many kinds of errors on invalid files
        raise _unreadable(path, failure_reason(error)) from error


def _data_hash(image: Image) -> bytes:
    """The hash of the data of an open JPEG; other formats are hashed by their pixels."""
    file = getattr(image, "fp", None)
    return jpeg_hash(file) if file and image.format in ("JPEG", "MPO") else UNKNOWN


def resize_and_crop(image: Image, size: int) -> Image:
    """``image`` with its short side resized to ``size`` pixels and its long side cropped."""
    from PIL import Image as Images
    from PIL import ImageOps

    return ImageOps.fit(image, (size, size), Images.Resampling.LANCZOS)


def resize(pixels: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """Every plane of ``pixels`` (N, ..., H, W) as ``size`` x ``size``, by `resize_and_crop`."""
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


def require_one_depth(depths: Mapping[int, str]) -> None:
    """Check that all 16-bit images of a set use the same number of bits.

    Args:
        depths: numbers of bits, each with a file that uses it.

    Raises:
        DataError: they differ, so some images would become too dark or too bright.
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

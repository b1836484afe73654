"""TIFF, OME-TIFF and ImageJ files with channels, slices, 16 bits or floats, by tifffile."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from instahide.data.pixels import Pixels
from instahide.data.readers.decoded import Decoded, kept_values, unreadable
from instahide.data.readers.image_file import has_more_frames, open_image_file
from instahide.data.readers.size_limits import require_plausible_size
from instahide.errors import failure_reason
from instahide.utils.atomic_write import open_regular
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    import tifffile

#: How a TIFF begins, also one of more than 4 GB.
MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

#: Modes of Pillow that hold all that is in a file of one page.
_PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B")
_BITS, _PHOTOMETRIC, _DESCRIPTION, _SAMPLES, _ORIENTATION = 258, 262, 270, 277, 274
_FORMAT, _UNSIGNED = 339, 1
#: Descriptions that say how a file of one page holds several images.
_STACKS = ("ImageJ=", '{"shape"', "<?xml", "<OME", "SCANIMAGE")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR, _JPEG = 0, 1, 2, 6, 7
#: Values that a tile or strip may always have, whatever the size of the image.
_MOST_TILE = 1 << 20


def is_plain_tiff(path: Path) -> bool:
    """Whether Pillow reads all of a TIFF: one page of unsigned 8 bits, or of 16 bits in grey.

    Raises:
        OSError: ``path`` is not a regular file.
    """
    try:
        with open_image_file(path) as image:
            tags = getattr(image, "tag_v2", {})
            bits = tags.get(_BITS, (1,))
            deep = max(bits if isinstance(bits, tuple) else (bits,)) > 8
            grey = tags.get(_SAMPLES, 1) == 1 and tags.get(_PHOTOMETRIC) == _BLACK_IS_ZERO
            stack = str(tags.get(_DESCRIPTION, "")).lstrip().startswith(_STACKS)
            single = not stack and not has_more_frames(image)
            # Of a pixel with further samples, Pillow drops these.
            bands = len(image.getbands())
            whole = image.mode in _PLAIN and tags.get(_SAMPLES, bands) == bands
            unsigned = _is_unsigned(tags.get(_FORMAT, _UNSIGNED))
            return single and whole and unsigned and (grey or not deep)
    except OSError:
        raise
    except Exception:
        # Pillow does not know the kind of pixels, or takes the file for too large or damaged.
        return False


def _is_unsigned(formats: int | tuple[int, ...]) -> bool:
    """Whether all samples are whole numbers without sign; Pillow reads others as if they were."""
    return set(formats if isinstance(formats, tuple) else (formats,)) == {_UNSIGNED}


def decode_tiff(path: Path, size: int | None = None) -> Decoded:
    """The first image or volume of a TIFF: (C, H, W), or (C, D, H, W) with D slices.

    Axes are those that the file states: ``C`` and ``S`` are channels, ``Z`` are slices.

    Raises:
        InstaHideError: the file is damaged, has other axes, transparency or a palette, or is
            implausibly large; or tifffile is not installed.
    """
    with requires_extra("tifffile", "medical"):
        import tifffile

    try:
        with open_regular(path) as file:
            file_bytes = os.fstat(file.fileno()).st_size
            # No name and no other files: OME-XML may name some anywhere.
            with tifffile.TiffFile(file, name="image", _multifile=False) as tiff:
                series = tiff.series[0]
                _require_plausible(series, file_bytes)
                _require_colors(series)
                values = np.asarray(series.asarray(maxworkers=1))
                pixels = _channels_first(values, series.axes)
                return kept_values(pixels, size, further=len(tiff.series) > 1)
    except Exception as error:  # tifffile raises many kinds of errors on damaged files
        raise unreadable(str(path), failure_reason(error)) from error


def _require_plausible(series: tifffile.TiffPageSeries, file_bytes: int) -> None:
    count = math.prod(series.shape)
    require_plausible_size(count * series.dtype.itemsize, file_bytes)
    page = series.keyframe
    tile = math.prod(page.chunks)
    if tile > max(_MOST_TILE, 4 * math.prod(page.shape)):
        raise ValueError(f"tiles of {tile} values may be a bomb")


def _require_colors(series: tifffile.TiffPageSeries) -> None:
    """Check that the values are what they seem: black is low, and there is no transparency."""
    page = series.keyframe
    color = int(page.photometric)
    if color == _WHITE_IS_ZERO:
        raise ValueError("0 is white; invert it and save it as such")
    if color not in (_BLACK_IS_ZERO, _RGB) and (color, int(page.compression)) != (_YCBCR, _JPEG):
        raise ValueError("its colors are neither grey nor RGB; convert them")
    if any(page.extrasamples):
        raise ValueError("it has transparency; save it without")
    orientation = page.tags.get(_ORIENTATION)
    if orientation is not None and orientation.value != 1:
        raise ValueError("it is stored turned or mirrored; save it upright")


def _channels_first(values: Pixels, axes: str) -> Pixels:
    """``values`` as (C, H, W), or as (C, D, H, W) where there is an axis of slices."""
    kept = [n for n, axis in enumerate(axes) if axis in "YX" or values.shape[n] > 1]
    values = values.reshape([values.shape[n] for n in kept])
    axes = "".join(axes[n] for n in kept)
    if not set("YX") <= set(axes) <= set("CSZYX") or len(set(axes)) < len(axes):
        raise ValueError(
            f"its axes are {axes}, and only channels (C), slices (Z), lines (Y) and columns (X) "
            "are known; save it with tifffile.imwrite(..., metadata={'axes': 'CYX'})"
        )
    ordered = np.moveaxis(values, [axes.index(a) for a in "CSZYX" if a in axes], range(values.ndim))
    spatial = ordered.shape[-3 if "Z" in axes else -2 :]
    return ordered.reshape(-1, *spatial)

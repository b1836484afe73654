"""Image files to 8-bit pixels, trusting no file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError
from instahide.images.channels import eight_bit, upright
from instahide.images.limits import reason_of
from instahide.images.opening import opened

if TYPE_CHECKING:
    from PIL.Image import Image


def decode(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    """The upright pixels of an image file: (H, W) if it is grey, else (H, W, 3).

    ``size`` resizes the short side to that many pixels and crops the centre square.

    Raises:
        InstaHideError: truncated, no image, not 8 or 16 bits a channel, or too big to be honest.
    """
    try:
        with opened(path) as image:
            if size is not None:
                # A JPEG decodes several times faster at a half, quarter or eighth of its size.
                image.draft(None, (2 * size, 2 * size))
            turned = upright(eight_bit(image), image)
        return np.asarray(turned if size is None else fitted(turned, size))
    except Exception as error:  # decoders raise almost anything when a file lies about itself
        raise InstaHideError(
            f"{path} is not a readable image ({reason_of(error)}).",
            "Replace or remove the file, or use --skip-bad to go on without it.",
        ) from error


def fitted(image: Image, size: int) -> Image:
    """The short side resized to ``size`` pixels, the long one cropped to its centre."""
    from PIL import Image as Images
    from PIL import ImageOps

    return ImageOps.fit(image, (size, size), Images.Resampling.LANCZOS)


def resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(N, C, H, W) -> (N, C, size, size), as `fitted` does it, C being 1 or 3."""
    from PIL import Image

    out = np.empty((*pixels.shape[:2], size, size), np.uint8)
    for row, target in zip(pixels, out, strict=True):
        image = Image.fromarray(row[0] if len(row) == 1 else row.transpose(1, 2, 0))
        target[:] = np.moveaxis(np.atleast_3d(np.asarray(fitted(image, size))), 2, 0)
    return out


def report_skipped(problems: Sequence[InstaHideError], total: int) -> None:
    """Warn how many of ``total`` files were skipped, naming the first."""
    if problems:
        warnings.warn(
            f"Skipped {len(problems)} of {total} files; the first: {problems[0].problem}",
            stacklevel=3,
        )

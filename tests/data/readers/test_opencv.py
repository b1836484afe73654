"""Files that OpenCV wrote have the values that OpenCV reads from them, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from instahide.data.public.crops import PHOTOS, photo_files
from instahide.data.readers.any_image import read_image

cv2 = pytest.importorskip("cv2")


def photograph() -> NDArray[np.uint8]:
    """(h, w, 3) a real photograph, with its channels in OpenCV's order."""
    path = next(path for path in photo_files(PHOTOS, 3) if path.suffix in (".png", ".jpg"))
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels[:101, :83]


EIGHT_BITS = [(suffix, "uint8", colour) for suffix in ("png", "tif", "jpg", "webp", "bmp")
              for colour in (True, False)]  # fmt: skip
#: PNG files with colors of 16 bits are refused.
SIXTEEN_BITS = [("png", "uint16", False), ("tif", "uint16", False), ("tif", "uint16", True)]


@pytest.mark.parametrize(("suffix", "dtype", "colour"), EIGHT_BITS + SIXTEEN_BITS)
def test_values_are_those_that_opencv_reads(
    tmp_path: Path, suffix: str, dtype: str, colour: bool
) -> None:
    pixels = photograph() if colour else cv2.cvtColor(photograph(), cv2.COLOR_BGR2GRAY)
    values = pixels if dtype == "uint8" else pixels.astype(np.uint16) * 251 + 3
    path = tmp_path / f"image.{suffix}"
    assert cv2.imwrite(str(path), values)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    expected = read[..., ::-1].transpose(2, 0, 1) if read.ndim == 3 else read[None]
    found = read_image(path).pixels
    # Formats without gray images hold three equal channels.
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, expected)

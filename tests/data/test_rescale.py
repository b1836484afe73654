"""Pixels of scanners with different bit depths, brought to one range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import DTypeLike

from instahide.data import open_images, open_split, open_test
from instahide.encodings.ledger.ledger import Ledger
from instahide.errors import DataError
from tests.data.test_pixels import random_pixels

WINDOWS = [
    (np.uint8, "full", (0, 255)),
    (np.uint8, (10, 99), (10, 99)),
    (np.uint16, (0, 4095), (0, 4095)),
    (np.int16, (-1000, 400), (-1000, 400)),
    (np.float32, (-2.5, 3.5), (-2.5, 3.5)),
]


@pytest.mark.parametrize(("dtype", "window", "kept"), WINDOWS)
def test_the_window_becomes_0_to_1(
    dtype: DTypeLike, window: object, kept: tuple[float, float], tmp_path: Path
) -> None:
    pixels = random_pixels(np.dtype(dtype), (12, 1, 6, 6))
    file = tmp_path / "images.npz"
    np.savez(file, images=pixels, labels=np.arange(len(pixels)) % 2)
    low, high = kept
    wanted = (pixels.astype(np.float64).clip(low, high) - low) / (high - low)
    plain = open_images(file, window=window)  # type: ignore[arg-type]
    table = open_images(file, window=window, rescale=True)  # type: ignore[arg-type]
    assert (table.pixels.dtype, table.value_range) == (np.float32, (0, 1))
    np.testing.assert_allclose(table.pixels, wanted, atol=1e-7)
    np.testing.assert_allclose(table.normalized(), plain.normalized(), atol=1e-4)
    # Scaled images are the same images.
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.account(plain).record(np.array([[0, 1]]), np.full((1, 2), 0.5, np.float32))
        assert ledger.account(table).counts[:2].tolist() == [1, 1]
    train, test = open_split(file, window=window, rescale=True)  # type: ignore[arg-type]
    for part in (train, test, open_test(file, window=window, rescale=True)):  # type: ignore[arg-type]
        assert (part.pixels.dtype, part.value_range) == (np.float32, (0, 1))
        assert 0 <= part.pixels.min() <= part.pixels.max() <= 1


@pytest.mark.parametrize(
    ("dtype", "window"),
    [
        (np.uint16, "full"),
        (np.float32, "full"),
        (np.uint16, ("1%", "99%")),
        (np.uint8, ("1%", "9%")),
    ],
)
def test_a_range_that_was_measured_is_no_unit(
    dtype: DTypeLike, window: object, tmp_path: Path
) -> None:
    """The darkest of two sets of images would be taken for as bright as the other."""
    file = tmp_path / "images.npz"
    np.savez(file, images=random_pixels(np.dtype(dtype), (12, 1, 6, 6)), labels=np.arange(12) % 2)
    for opened in (open_images, open_split, open_test):
        with pytest.raises(DataError, match="range of their scanner is not stated"):
            opened(file, window=window, rescale=True)  # type: ignore[operator]


def test_dark_16_bit_pixels_are_not_taken_for_8_bit_ones(tmp_path: Path) -> None:
    pixels = np.zeros((4, 1, 2, 2), np.uint16)
    pixels[0, 0, 0, 0] = 255
    np.savez(tmp_path / "images.npz", images=pixels, labels=np.arange(4) % 2)
    with pytest.raises(DataError, match="range of their scanner is not stated"):
        open_images(tmp_path / "images.npz", rescale=True)

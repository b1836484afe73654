"""Test images in the unit of the network's images, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import DTypeLike

from instahide.data import ImageTable
from instahide.data.pixels import ValueRange
from instahide.errors import DataError
from instahide.training.data.alignment import to_value_range


def images(dtype: DTypeLike, low: float, high: float) -> ImageTable:
    values = np.random.default_rng(0).uniform(low, high, (40, 1, 8, 8)).astype(dtype)
    return ImageTable.from_arrays(values, np.arange(40) % 2)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "of_network"),
    [
        (np.uint8, 0, 255, (-1000, 400)),  # an 8-bit copy of CT values
        (np.uint8, 0, 255, (0, 4095)),
        (np.uint16, 0, 4095, (0, 65535)),  # 12 bits among 16
        (np.uint16, 0, 65535, (0, 255)),
        (np.int16, 0, 4000, (-1000, 400)),
        (np.float32, 0, 1, (0, 255)),
        (np.float32, 0, 1, (-1000, 400)),
        (np.float32, 0, 255, (0, 1)),
    ],
)
def test_pixels_of_another_unit_are_refused(
    dtype: DTypeLike, low: float, high: float, of_network: ValueRange
) -> None:
    with pytest.raises(DataError, match=r"another unit.*window"):
        to_value_range(images(dtype, low, high), of_network)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "of_network"),
    [
        (np.uint8, 0, 255, (10, 200)),
        (np.uint16, 100, 3000, (0, 4095)),
        (np.int16, -1024, 2000, (-1000, 400)),  # bone in few pixels
        (np.float32, -0.2, 1.1, (0, 1)),
    ],
)
def test_pixels_of_the_same_unit_are_clipped_to_its_range(
    dtype: DTypeLike, low: float, high: float, of_network: ValueRange
) -> None:
    table = images(dtype, low, high)
    if dtype == np.int16:
        table = ImageTable.from_arrays(np.where(table.pixels > 400, -500, table.pixels))
    found = to_value_range(table, of_network)
    assert found.value_range == of_network
    np.testing.assert_array_equal(found.pixels, table.pixels.clip(*of_network).astype(dtype))


def test_a_dark_image_is_taken_where_its_range_is_named() -> None:
    dark = images(np.uint16, 0, 100)
    dark = dark.with_pixels(dark.pixels, (0, 4095))
    assert to_value_range(dark, (0, 4095)) is dark

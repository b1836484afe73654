"""Pixels in another unit than other images are found, also in large volumes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from instahide.data.pixel_units import require_same_unit
from instahide.errors import InstaHideError
from tests.scan_files import ct

pytest.importorskip("pydicom")


@pytest.mark.parametrize("window", [(-1000.0, 400.0), (-1000.0, 1500.0), (-160.0, 240.0)])
def test_a_ct_is_in_the_unit_of_a_window_of_cts(window: tuple[float, float]) -> None:
    require_same_unit(ct()[None, None], window)


@given(factor=st.sampled_from([1 / 64, 1 / 16, 16.0, 64.0]))
def test_other_bit_depths_are_refused(factor: float) -> None:
    stored = (ct()[None, None].astype(np.float32) + 1000) * np.float32(factor)
    with pytest.raises(InstaHideError, match="in another unit than those before"):
        require_same_unit(stored, (0.0, 2500.0))


@pytest.mark.parametrize(("dtype", "window"), [(np.uint8, (-1000, 400)), (np.int16, (0, 255))])
def test_eight_bits_are_no_measured_values(dtype: type, window: tuple[float, float]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 16, 16)).astype(dtype)
    with pytest.raises(InstaHideError, match="another unit"):
        require_same_unit(pixels, window)


@pytest.mark.parametrize("scale", [lambda x: 2 * x - 1, lambda x: (x - x.mean()) / x.std()])
def test_scaled_pixels_are_no_shares_of_a_range(
    scale: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    shares = np.random.default_rng(0).random((20, 1, 8, 8), np.float32)
    require_same_unit(shares, (0.0, 1.0))
    # A little below, as after resizing.
    require_same_unit(shares - np.float32(0.02), (0.0, 1.0))
    with pytest.raises(InstaHideError, match="another unit"):
        require_same_unit(scale(shares), (0.0, 1.0))


def test_large_volumes_are_looked_at_in_part() -> None:
    volumes = np.broadcast_to(ct()[:256, :256], (8, 1, 256, 256, 256))
    tracemalloc.start()
    require_same_unit(volumes, (-1000.0, 1500.0))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < volumes.size * 8 / 2  # Half of what all would take as floats.

"""Pixels of every type: their range, their moments, and where their channels are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instahide.data import ImageTable
from instahide.data.pixels import DTYPES, channels_first, clip_pixels
from instahide.errors import DataError

TYPES = st.sampled_from(DTYPES)


def random_pixels(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int = 0) -> Any:
    """Of the whole range of an integer type."""
    generator = np.random.default_rng(seed)
    if dtype.kind == "f":
        return generator.normal(100, 1000, shape).astype(dtype)
    extremes = np.iinfo(dtype)
    return generator.integers(extremes.min, extremes.max + 1, shape).astype(dtype)


@given(TYPES, st.integers(0, 2**32), st.sampled_from([(5, 7), (3, 5, 7)]), st.integers(1, 5))
def test_normalized_images_have_mean_0_and_deviation_1(
    dtype: np.dtype[Any], seed: int, size: tuple[int, ...], channels: int
) -> None:
    pixels = random_pixels(dtype, (9, channels, *size), seed)
    values = ImageTable(
        pixels, *_labels(9), *_moments(pixels), value_range=_extremes(pixels)
    ).normalized()
    axes = (0, *range(2, pixels.ndim))
    np.testing.assert_allclose(values.mean(axis=axes), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(axis=axes), 1, atol=1e-4)


def _labels(count: int) -> tuple[Any, tuple[str, ...]]:
    return np.arange(count) % 2, ("cat", "dog")


def _moments(pixels: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As NumPy computes them."""
    low, high = _extremes(pixels)
    units = (pixels.astype(np.float64) - low) / (high - low)
    axes = (0, *range(2, pixels.ndim))
    return tuple(units.mean(axis=axes).tolist()), tuple(units.std(axis=axes).tolist())


def _extremes(pixels: Any) -> tuple[float, float]:
    return (0.0, 255.0) if pixels.dtype == np.uint8 else (float(pixels.min()), float(pixels.max()))


@given(TYPES, st.integers(0, 2**32))
def test_a_table_measures_range_and_moments(dtype: np.dtype[Any], seed: int) -> None:
    pixels = random_pixels(dtype, (9, 2, 5, 7), seed)
    table = ImageTable.from_arrays(pixels, np.arange(9) % 2)
    assert table.value_range == _extremes(pixels)
    for found, expected in zip((table.mean, table.std), _moments(pixels), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert table.pixels is pixels


@given(TYPES, st.integers(0, 2**32))
def test_pixels_beyond_a_window_get_its_ends(dtype: np.dtype[Any], seed: int) -> None:
    pixels = random_pixels(dtype, (5, 1, 4, 4), seed)
    table = ImageTable.from_arrays(pixels, np.arange(5) % 2, value_range=(50, 200))
    np.testing.assert_array_equal(table.pixels, np.clip(pixels, 50, 200))
    units = (np.clip(pixels.astype(np.float64), 50, 200) - 50) / 150
    spread = (units - table.mean[0]) / table.std[0]
    np.testing.assert_allclose(table.normalized(), spread, atol=1e-4)


@given(TYPES, TYPES, st.integers(0, 2**32))
def test_public_images_get_the_type_and_the_range_of_private_ones(
    one: np.dtype[Any], other: np.dtype[Any], seed: int
) -> None:
    public = ImageTable.from_arrays(random_pixels(one, (5, 1, 4, 4), seed))
    private = ImageTable.from_arrays(random_pixels(other, (6, 1, 4, 4), seed), np.arange(6) % 2)
    found = public.with_pixels_like(private)
    assert (found.pixels.dtype, found.value_range) == (other, private.value_range)
    low, high = private.value_range
    units = (found.pixels.astype(np.float64) - low) / (high - low)
    start, end = public.value_range
    expected = (public.pixels.astype(np.float64) - start) / (end - start)
    step = 0 if other.kind == "f" else 0.5 / (high - low)
    np.testing.assert_allclose(units, expected, atol=step + 1e-6)
    assert found.mean == public.mean


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((6, 8, 9), 1), ((6, 1, 8, 9), 1), ((6, 3, 8, 9), 3), ((6, 8, 9, 3), 3), ((6, 5, 8, 9), 5),
        ((6, 8, 9, 5), 5), ((6, 3, 2, 2), 3), ((6, 1, 4, 8, 9), 1), ((6, 2, 4, 8, 9), 2),
        ((6, 4, 8, 9, 3), 3),
    ],
)  # fmt: skip
def test_channels_are_found(shape: tuple[int, ...], channels: int) -> None:
    found = channels_first(np.zeros(shape, np.uint16))
    assert found.shape[1] == channels


@pytest.mark.parametrize("shape", [(6,), (6, 8), (6, 8, 8, 8), (6, 65, 80, 80), (1, 2, 3, 4, 5, 6)])
def test_channels_that_cannot_be_told_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="channels"):
        channels_first(np.zeros(shape, np.uint16))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(value: float) -> None:
    pixels = np.zeros((3, 1, 4, 4), np.float32)
    pixels[1, 0, 2, 2] = value
    with pytest.raises(DataError, match="not finite"):
        ImageTable.from_arrays(pixels)


def test_a_window_refuses_nan() -> None:
    with pytest.raises(DataError, match="not finite"):
        clip_pixels(np.full((1, 1, 2, 2), np.nan, np.float32), (0, 1))


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.bool_, np.complex64, np.int8])
def test_other_types_are_refused(dtype: Any) -> None:
    with pytest.raises(DataError, match="a table holds"):
        ImageTable.from_arrays(np.zeros((3, 1, 4, 4), dtype))


@pytest.mark.parametrize("window", [(0.5, 101.5), (0.1, 0.9), (0.1, 0.3)])
@given(TYPES, st.integers(0, 2**32))
def test_clipped_pixels_are_within_the_window(
    window: tuple[float, float], dtype: np.dtype[Any], seed: int
) -> None:
    pixels = random_pixels(dtype, (4, 1, 5, 5), seed)
    if dtype.kind != "f" and window[1] < 1:
        with pytest.raises(DataError, match="no two values"):
            clip_pixels(pixels, window)
        return
    found = clip_pixels(pixels, window).astype(np.float64)
    assert window[0] <= found.min() <= found.max() <= window[1]


def test_clipped_images_are_known_as_what_they_were() -> None:
    pixels = random_pixels(np.dtype(np.uint16), (6, 1, 4, 4))
    whole = ImageTable.from_arrays(pixels, np.arange(6) % 2)
    clipped = ImageTable.from_arrays(pixels, np.arange(6) % 2, value_range=(20_000, 40_000))
    assert (clipped.pixels != whole.pixels).any()
    assert clipped.sources is not None
    np.testing.assert_array_equal(clipped.sources[:, 0], whole.content_hashes)


def test_minus_zero_is_zero_for_duplicates() -> None:
    pixels = random_pixels(np.dtype(np.float32), (4, 1, 4, 4))
    pixels[0, 0, 0] = 0
    pixels[1] = np.where(pixels[0] == 0, np.float32(-0.0), pixels[0])
    table = ImageTable.from_arrays(pixels, np.arange(4) % 2)
    assert table.content_ids.tolist() == [0, 0, 1, 2]


@given(TYPES, st.integers(0, 2**32))
def test_rows_that_do_not_lie_in_order_are_gathered(dtype: np.dtype[Any], seed: int) -> None:
    pixels = random_pixels(dtype, (9, 2, 5, 5), seed)
    part = ImageTable.from_arrays(pixels, np.arange(9) % 2).subset(slice(1, None, 2))
    rows = part.rows(np.array([[0, 3], [2, 2]]))
    np.testing.assert_array_equal(rows.pixels[rows.positions], pixels[[[1, 7], [5, 5]]])
    assert rows.pixels.flags.c_contiguous


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(DataError, match="no task 'multilabel'"):
        ImageTable.from_arrays(
            np.zeros((4, 1, 4, 4), np.uint8), [[0.5]] * 4, ["a"], task="multilabel"
        )

"""Windows of values, and 16-bit images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from instahide.data import open_images, open_split, open_test
from instahide.data.readers.window import percentile_range, read_window
from instahide.errors import InstaHideError


@pytest.fixture
def scans(tmp_path):
    """12-bit images of two classes; those of one use 16 grey levels only in their high byte."""
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, 8)).astype(np.uint16)
    for number, image in enumerate(values):
        folder = tmp_path / "scans" / ("healthy", "ill")[number // 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path / "scans", values


def test_twelve_bits_stay_twelve_bits(scans):
    folder, values = scans
    table = open_images(folder, progress=False)
    assert table.pixels.dtype == np.uint16
    np.testing.assert_array_equal(table.pixels[:, 0], values)
    assert table.value_range == (values.min(), values.max())


def test_beside_eight_bit_images_they_are_refused_with_both_named(scans):
    folder, _ = scans
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "healthy" / "z.png")
    with pytest.raises(
        InstaHideError, match=r"0\.png is uint16 of 1 x 8 x 8, but .*z\.png is uint8"
    ):
        open_images(folder, progress=False)


def test_a_window_clips_and_becomes_the_range(scans):
    folder, values = scans
    table = open_images(folder, window=(100, 2000), progress=False)
    assert table.value_range == (100, 2000)
    assert table.pixels.dtype == np.uint16
    np.testing.assert_array_equal(table.pixels[:, 0], np.clip(values, 100, 2000))
    with pytest.raises(InstaHideError, match="cannot range from -5"):
        open_images(folder, window=(-5, 2000), progress=False)


def test_percentiles_are_those_of_the_training_images(scans):
    folder, _ = scans
    train, test = open_split(folder, window=("10%", "90%"), progress=False)
    assert test.value_range == train.value_range
    low, high = train.value_range
    assert low <= test.pixels.min() <= test.pixels.max() <= high


def test_test_images_of_a_folder_are_shown_through_the_window_of_the_training_images(
    scans, tmp_path
):
    folder, _ = scans
    whole = tmp_path / "whole"
    whole.mkdir()
    folder.rename(whole / "train")
    for name in ("healthy", "ill"):
        (whole / "test" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 9000, np.uint16)).save(whole / "test" / name / "a.png")
    split = open_split(whole, window=("10%", "90%"), progress=False)
    test = open_test(whole, window=("10%", "90%"), progress=False)
    assert test.value_range == split.train.value_range == split.test.value_range
    assert (test.pixels == split.train.value_range[1]).all()


def test_the_same_pictures_through_another_window_have_the_same_sources(scans):
    folder, _ = scans
    whole = open_images(folder, progress=False)
    clipped = open_images(folder, window=(100, 200), progress=False)
    np.testing.assert_array_equal(whole.sources, clipped.sources)


@settings(deadline=None)
@given(
    pixels=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            st.tuples(st.integers(1, 4), st.integers(1, 30)),
            elements=st.floats(-1e6, 1e6, width=32) if dtype == np.float32 else None,
        )
    ),
    share=st.floats(0, 100),
)
def test_percentiles_agree_with_numpy(pixels, share):
    low, high = (np.percentile(pixels, each, method="lower") for each in (0, share))
    try:
        found = percentile_range(pixels, ("0%", f"{share!r}%"))
    except InstaHideError:
        assert low == high
        return
    assert found == (low, high)


@pytest.mark.parametrize(
    "text", ["", "1", "1,2,3", "2,1", "5%", "1%,2", "9%,1%", "1%,101%", "nan,1"]
)
def test_what_is_no_window(text):
    with pytest.raises(InstaHideError, match="is no window"):
        read_window(text)


def test_windows_as_they_are_typed():
    assert read_window("-1000,400") == (-1000, 400)
    assert read_window("1%, 99%") == ("1%", "99%")
    assert read_window("file") == "file"


def test_only_dicom_states_a_window(scans):
    folder, _ = scans
    with pytest.raises(InstaHideError, match="states no window"):
        open_images(folder, window="file", progress=False)
    with pytest.raises(InstaHideError, match="Only DICOM"):
        open_images("digits", window="file")


def test_a_window_of_arrays():
    table = open_images("digits", window=(10, 200))
    assert table.value_range == (10, 200)
    assert (table.pixels.min(), table.pixels.max()) == (10, 200)

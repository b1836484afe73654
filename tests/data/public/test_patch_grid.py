"""Places of patches: inside the image, each once, and half a patch apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from instahide.data.public.patch_grid import place_counts, random_patches

AXES = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=2, max_size=3)


@given(axes=AXES, channels=st.integers(1, 3), slices=st.integers(0, 3), seed=st.integers(0, 99))
def test_every_patch_is_a_block_of_the_image_and_no_two_are_the_same(axes, channels, slices, seed):
    shape = tuple(side for side, _ in axes)
    sides = tuple(side + more for side, more in axes)
    if slices and len(shape) == 2:
        sides = (slices, *sides)
    # The value of a pixel is its place.
    pixels = np.arange(channels * np.prod(sides)).reshape(channels, *sides)
    starts = []
    for patch in random_patches(pixels, shape, np.random.default_rng(seed)):
        assert patch.shape == (channels, *shape)
        assert np.shares_memory(patch, pixels)
        start = np.unravel_index(int(patch.flat[0]), pixels.shape)[1:]
        whole = (1,) * (len(sides) - len(shape)) + shape
        block = pixels[(slice(None), *(slice(s, s + n) for s, n in zip(start, whole, strict=True)))]
        np.testing.assert_array_equal(patch, block.reshape(patch.shape))
        starts.append(start)
    assert len(set(starts)) == len(starts) == np.prod(place_counts(sides, shape))
    for axis, side in enumerate((1,) * (len(sides) - len(shape)) + shape):
        found = sorted({start[axis] for start in starts})
        assert set(np.diff(found)) <= {max(1, side // 2)}
        # No further place fits at either end.
        assert found[0] < max(1, side // 2) or found[0] == 0
        assert sides[axis] - side - found[-1] < max(1, side // 2)


def test_the_origin_differs_from_pool_to_pool() -> None:
    pixels = np.arange(15 * 15).reshape(1, 15, 15)
    first = {
        min(int(p.flat[0]) for p in random_patches(pixels, (8, 8), np.random.default_rng(seed)))
        for seed in range(50)
    }
    assert len(first) > 4

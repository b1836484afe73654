"""Matrix blurs against SciPy's, and what is left out of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from instahide.attacks.reconstruction.pair_encoder.filters import (
    blur,
    from_neighbours,
    high_pass,
)

IMAGES = torch.from_numpy(np.random.default_rng(0).random((2, 3, 12, 9), np.float32))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 6.0])
def test_blur_is_scipys_mirrored_gaussian(sigma: float) -> None:
    expected = gaussian_filter(
        IMAGES.numpy(), sigma, mode="mirror", axes=(2, 3), radius=int(np.ceil(4 * sigma))
    )
    np.testing.assert_allclose(blur(IMAGES, sigma).numpy(), expected, atol=1e-5)


def test_no_blur_changes_nothing() -> None:
    assert blur(IMAGES, 0) is IMAGES


def test_high_pass_is_blind_to_what_is_even() -> None:
    assert high_pass(torch.full((1, 3, 8, 8), 5.0)).abs().max() < 1e-5


def test_neighbours_say_nothing_of_the_pixel_itself() -> None:
    changed = IMAGES.clone()
    changed[0, 0, 5, 5] += 100
    before, after = (from_neighbours(images, 0.8) for images in (IMAGES, changed))
    assert after[0, 0, 5, 5] == pytest.approx(float(before[0, 0, 5, 5]), abs=1e-4)
    assert after[0, 0, 5, 6] > before[0, 0, 5, 6] + 1

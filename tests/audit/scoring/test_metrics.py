"""Metrics against scikit-image and against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from instahide.audit.scoring import metrics


def pair(channels: int, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(channels)
    original = torch.rand(5, channels, side, side, generator=generator)
    noise = 0.1 * torch.randn(original.shape, generator=generator)
    return (original + noise).clamp(0, 1), original


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_and_psnr_are_scikit_images(channels: int) -> None:
    found, original = pair(channels)
    likeness, ratio = metrics.ssim(found, original), metrics.psnr(found, original)
    for number in range(len(found)):
        a, b = found[number].numpy(), original[number].numpy()
        expected = structural_similarity(
            a, b, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        assert float(likeness[number]) == pytest.approx(expected, abs=1e-5)
        assert float(ratio[number]) == pytest.approx(
            peak_signal_noise_ratio(b, a, data_range=1), abs=1e-3
        )


def test_equal_images() -> None:
    _, original = pair(3)
    assert metrics.ssim(original, original).tolist() == pytest.approx([1] * 5)
    assert metrics.mse(original, original).tolist() == [0] * 5
    assert all(math.isinf(value) for value in metrics.psnr(original, original).tolist())


def test_by_hand() -> None:
    black, grey = torch.zeros(1, 1, 11, 11), torch.full((1, 1, 11, 11), 0.5)
    assert float(metrics.mse(black, grey)) == pytest.approx(0.25)
    assert float(metrics.psnr(black, grey)) == pytest.approx(10 * math.log10(4))
    # Flat images leave the luminance term, (2 a b + c1) / (a^2 + b^2 + c1) with c1 = 0.01^2.
    assert float(metrics.ssim(black, grey)) == pytest.approx(1e-4 / (0.25 + 1e-4), rel=1e-3)


def test_the_data_range_is_not_the_images_own() -> None:
    found, original = pair(1)
    ratio = metrics.psnr(found / 2, original / 2) - metrics.psnr(found, original)
    assert ratio.tolist() == pytest.approx([20 * math.log10(2)] * 5, abs=1e-3)


def test_small_images_have_a_window_that_fits() -> None:
    found, original = pair(1, side=8)
    values = metrics.ssim(found, original)
    assert bool(((values > 0) & (values < 1)).all())


def test_sign_brightness_and_contrast_are_forgiven() -> None:
    _, original = pair(3)
    gain = torch.tensor([-2.0, 0.1, 5.0])[:, None, None]
    mapped = metrics.best_affine(original * gain + 7, original)
    torch.testing.assert_close(mapped, original, rtol=0, atol=1e-5)


def test_an_image_of_nothing_becomes_the_mean() -> None:
    _, original = pair(1)
    mapped = metrics.best_affine(torch.zeros_like(original), original)
    torch.testing.assert_close(mapped, original.mean(dim=(2, 3), keepdim=True).expand_as(original))


def test_best_affine_is_least_squares() -> None:
    found, original = pair(1)
    x, y = found[0].numpy().ravel(), original[0].numpy().ravel()
    gain, bias = np.polyfit(x, y, 1)
    mapped = metrics.best_affine(found[:1], original[:1]).numpy().ravel()
    np.testing.assert_allclose(mapped, np.clip(gain * x + bias, 0, 1), atol=1e-5)


def test_the_nearest_is_found_under_any_sign_and_scale() -> None:
    found, original = pair(3)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert metrics.nearest(-3 * found[order] + 1, original).tolist() == order.tolist()


def test_the_rendering_with_the_highest_ssim_is_taken_for_each_image() -> None:
    found, original = pair(3)
    worse = torch.zeros_like(original)
    swapped = torch.cat([worse[:2], found[2:]]), torch.cat([found[:2], worse[2:]])
    shown, values = metrics.best_rendering(swapped, original)
    assert torch.equal(shown, found)
    assert torch.equal(values, metrics.ssim(found, original))

"""Scores of volumes, against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.audit.scoring import metrics
from instahide.audit.scoring.blank_baseline import best_blank
from tests.scans import volumes


def _volumes(side: int) -> tuple[Tensor, Tensor]:
    scans = torch.from_numpy(volumes(4, side)[0].astype(np.float32))
    scans = scans / scans.max()
    noise = torch.randn(scans.shape, generator=torch.Generator().manual_seed(0))
    return (scans + 0.1 * noise).clamp(0, 1), scans


@pytest.mark.parametrize("side", [8, 9, 11, 14])
def test_ssim_of_volumes_is_that_of_scikit_image(side: int) -> None:
    skimage = pytest.importorskip("skimage.metrics")
    found, original = _volumes(side)
    ours = metrics.ssim(found, original)
    radius, deviation = metrics.window(original.shape[2:])
    inside = (slice(radius, -radius),) * 3
    for one, other, value in zip(found, original, ours, strict=True):
        _, everywhere = skimage.structural_similarity(
            one[0].numpy(), other[0].numpy(), data_range=1.0, gaussian_weights=True,
            sigma=deviation, use_sample_covariance=False, full=True,
        )  # fmt: skip
        assert float(value) == pytest.approx(float(everywhere[inside].mean()), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("side", [8, 14])
def test_the_best_blank_volume_is_the_best_of_many_constants(side: int) -> None:
    _, original = _volumes(side)
    levels = torch.linspace(0, 1, 201) ** 2
    tried = torch.stack(
        [metrics.ssim(torch.full_like(original, float(level)), original) for level in levels]
    )
    torch.testing.assert_close(best_blank(original), tried.amax(dim=0), atol=2e-3, rtol=0)

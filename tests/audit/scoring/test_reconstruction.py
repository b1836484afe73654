"""The score of recovered images: who stands for whom, and what was assigned rightly."""

from __future__ import annotations

import pytest
import torch

from instahide.attacks.base import (
    AssignedImages,
)
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics
from instahide.audit.scoring.reconstruction import (
    ReconstructionScore,
    renderings,
    score_reconstruction,
    to_pixels,
)
from tests.attacks.conftest import natural

PARTNERS = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 1]])
COEFFICIENTS = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.3, 0.7], [0.8, 0.2]])


def scored(images: torch.Tensor, members: torch.Tensor) -> tuple[list[int], float, list[float]]:
    nothing = torch.zeros(0, dtype=torch.int64)
    originals = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 4
    truth = GroundTruth(originals, PARTNERS, COEFFICIENTS, 2, nothing, nothing, nothing)
    found = AssignedImages(originals[images], members, torch.ones(members.shape))
    score = score_reconstruction(found, truth, (0.5,) * 3, (0.25,) * 3)
    return score.rows.tolist(), score.mass, score.ssim.tolist()


def test_images_are_matched_by_who_is_in_which_encoding() -> None:
    rows, mass, ssim = scored(
        torch.tensor([2, 0, 1]), torch.tensor([[1, 2], [2, 0], [0, 1], [1, 2]])
    )
    assert rows == [2, 0, 1]
    assert mass == pytest.approx(1)
    assert ssim == pytest.approx([1, 1, 1])


def test_members_that_were_not_found_are_no_guess() -> None:
    # Half of the first encoding is not found, and nothing of the third.
    members = torch.tensor([[0, -1], [1, 2], [-1, -1], [0, 1]])
    rows, mass, _ = scored(torch.tensor([0, 1, 2]), members)
    assert rows == [0, 1, 2]
    assert mass == pytest.approx((0.6 + 1.0 + 0.0 + 1.0) / 4)


MOMENTS = ((0.5,) * 3, (0.25,) * 3)


def photographs() -> torch.Tensor:
    """(3, 3, 32, 32) images like photographs, normalized."""
    pixels = torch.from_numpy(natural(3, 4, 32)).float() / 255
    return (pixels - 0.5) / 0.25


def score_of(images: torch.Tensor, originals: torch.Tensor) -> ReconstructionScore:
    nothing = torch.zeros(0, dtype=torch.int64)
    truth = GroundTruth(originals, PARTNERS, COEFFICIENTS, 2, nothing, nothing, nothing)
    return score_reconstruction(AssignedImages(images, PARTNERS, COEFFICIENTS), truth, *MOMENTS)


def test_an_image_with_a_turned_patch_is_not_flattened_by_the_affine_map() -> None:
    originals = photographs()
    turned = originals.clone()
    turned[:, :, :14] *= -1
    score = score_of(turned, originals)
    pixels = to_pixels(originals, *MOMENTS)
    affine = metrics.ssim(metrics.best_affine(turned, pixels), pixels)
    raw = metrics.ssim(to_pixels(turned, *MOMENTS), pixels)
    assert bool((raw > affine + 0.05).all())
    torch.testing.assert_close(score.ssim, raw)
    torch.testing.assert_close(metrics.ssim(score.shown, pixels), score.ssim)


def test_the_better_of_raw_and_affine_is_taken_and_either_sign() -> None:
    originals = photographs()
    # Too dark and with little contrast; of the other sign; as it is.
    found = torch.stack([0.2 * originals[0] - 1, -originals[1], originals[2]])
    score = score_of(found, originals)
    assert score.ssim.tolist() == pytest.approx([1, 1, 1], abs=0.02)
    pixels = to_pixels(originals, *MOMENTS)
    for way in renderings(found, pixels, *MOMENTS):
        assert bool((score.ssim >= metrics.ssim(way, pixels)).all())

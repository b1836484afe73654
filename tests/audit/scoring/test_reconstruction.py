"""The score of recovered images: who stands for whom, and what was assigned rightly."""

from __future__ import annotations

import pytest
import torch

from instahide.attacks.base import (
    AssignedImages,
)
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.reconstruction import score_reconstruction

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

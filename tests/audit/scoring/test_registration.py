"""An image that is recovered mirrored or shifted is recovered."""

from __future__ import annotations

import pytest
import torch

from instahide.attacks.base import AssignedImages, RecoveredImages
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.reconstruction import score_reconstruction
from instahide.audit.scoring.registration import registered
from tests.attacks.conftest import natural

PARTNERS = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 1]])


def truth_of(moves: torch.Tensor | None) -> GroundTruth:
    """The truth of four encodings of three images."""
    pixels = torch.from_numpy(natural(3, 4, 32)).float() / 255
    nothing = torch.zeros(0, dtype=torch.int64)
    images = (pixels - 0.5) / 0.25
    return GroundTruth(
        images, PARTNERS, torch.full((4, 2), 0.5), 2, nothing, nothing, nothing, moves=moves
    )


def moves_of(shift: int, mirrored: int) -> torch.Tensor:
    moves = torch.zeros(4, 2, 3, dtype=torch.int64)
    moves[0, 0] = torch.tensor([shift, 0, mirrored])
    return moves


def ssim_of(images: torch.Tensor, truth: GroundTruth) -> torch.Tensor:
    found = AssignedImages(images, PARTNERS, torch.full((4, 2), 0.5))
    return score_reconstruction(found, truth, (0.5,) * 3, (0.25,) * 3).ssim


def test_a_mirrored_image_counts_where_images_were_mirrored() -> None:
    truth = truth_of(moves_of(0, 1))
    assert ssim_of(truth.images.flip(3), truth).tolist() == pytest.approx([1, 1, 1])
    assert ssim_of(truth.images, truth).tolist() == pytest.approx([1, 1, 1])
    for unmoved in (None, moves_of(0, 0)):
        assert ssim_of(truth.images.flip(3), truth_of(unmoved)).max() < 0.9


def test_a_shifted_image_is_compared_in_its_place() -> None:
    truth = truth_of(moves_of(3, 0))
    shifted = truth.images.roll((2, -3), dims=(2, 3))
    found = registered(shifted, truth.images, truth)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(found[inner], truth.images[inner])
    too_far = registered(truth.images.roll(6, dims=2), truth.images, truth)
    assert not torch.allclose(too_far[inner], truth.images[inner])


def test_each_image_is_moved_by_itself_and_its_sign_does_not_matter() -> None:
    truth = truth_of(moves_of(0, 1))
    images = torch.cat([-truth.images[:1].flip(3), truth.images[1:2], truth.images[2:].flip(3)])
    found = registered(images, truth.images, truth)
    torch.testing.assert_close(found, torch.cat([-truth.images[:1], truth.images[1:]]))


def test_nothing_is_moved_without_augmentation() -> None:
    truth = truth_of(None)
    found = RecoveredImages(truth.images.flip(3), torch.arange(3))
    torch.testing.assert_close(registered(found.images, truth.images, truth), found.images)


def test_the_slices_of_a_volume_move_together() -> None:
    truth = truth_of(moves_of(1, 1))
    volumes = truth.images.reshape(3, 1, 3, 32, 32)
    moved = registered(volumes.flip(-1), volumes, truth)
    torch.testing.assert_close(moved, volumes)

"""The ceiling of a reconstruction: from a start at the truth, and never below the attack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from instahide.attacks.base import AssignedImages, EncodingObservation, ThreatModel
from instahide.attacks.reconstruction.recovery.phase_retrieval import recover, signed_encodings
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.blank_baseline import counts_as_recovered
from instahide.audit.scoring.ceiling import ceiling_of, refined_truth, resists
from instahide.audit.scoring.matching import Matches, match_in_order, match_to_truth
from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.attacks.conftest import natural

IMAGES = 20


def observed(scheme: Scheme, copies: int) -> tuple[EncodingObservation, GroundTruth]:
    private = ImageTable.from_arrays(natural(IMAGES, 1), np.arange(IMAGES) % 5)
    public = ImageTable.from_arrays(natural(200, 2)) if scheme.public_k else None
    threat = ThreatModel(labels="none", public="none", encodings_per_image=copies)
    return observe(private, public, scheme, threat)


def assigned(images: torch.Tensor, truth: GroundTruth) -> AssignedImages:
    private = slice(0, truth.private_k)
    return AssignedImages(images, truth.partners[:, private], truth.coefficients[:, private])


def test_it_rises_with_the_number_of_encodings() -> None:
    few, many = (ceiling_of(*observed(Scheme.cross(6), copies)) for copies in (2, 30))
    assert float(few.ssim.mean()) < 0.8 < 0.9 < float(many.ssim.mean())
    assert many.rows.tolist() == list(range(IMAGES))
    assert many.total == many.recognizable == IMAGES


def test_the_truth_is_a_better_start_than_an_attackers() -> None:
    """With the same assignment and coefficients, from few encodings."""
    observation, truth = observed(Scheme.cross(6), 10)
    private = slice(0, truth.private_k)
    mixes = SparseMixing(truth.partners[:, private], truth.coefficients[:, private], IMAGES)
    generator = torch.Generator().manual_seed(0)
    attacked = recover(signed_encodings(observation), mixes, generator=generator).images
    ceiling = ceiling_of(observation, truth)
    other = match_in_order(attacked, observation, truth)
    assert float(ceiling.ssim.mean()) > float(other.ssim.mean())


@pytest.mark.parametrize("scheme", [Scheme.mixup(2), Scheme.plain()], ids=["mixup", "plain"])
def test_without_a_mask_it_is_the_images_themselves(scheme: Scheme) -> None:
    observation, truth = observed(scheme, 3)
    torch.testing.assert_close(
        refined_truth(observation, truth), truth.images, atol=0.05, rtol=0.05
    )
    assert float(ceiling_of(observation, truth).ssim.min()) > 0.99


def counted(matches: Matches) -> set[int]:
    right = matches.recognized & counts_as_recovered(matches.ssim, matches.blank)
    return set(matches.rows[right].tolist())


@pytest.mark.parametrize("copies", [1, 3])
def test_it_is_at_least_as_high_as_the_attack(copies: int) -> None:
    """For each image, although the attack is better on some and has others twice or not at all."""
    observation, truth = observed(Scheme.cross(6), copies)
    generator = torch.Generator().manual_seed(0)
    images = truth.images + 2 * torch.randn(truth.images.shape, generator=generator)
    images[:7] = truth.images[:7]
    found = match_to_truth(assigned(images, truth), observation, truth)
    assert found is not None
    alone, ceiling = ceiling_of(observation, truth), ceiling_of(observation, truth, found)
    assert bool((alone.ssim[found.rows] < found.ssim).any())
    assert bool((ceiling.ssim[found.rows] >= found.ssim).all())
    assert bool((ceiling.ssim >= alone.ssim).all())
    assert counted(found) | counted(alone) <= counted(ceiling)
    assert ceiling.recognizable >= found.recognizable >= 7
    # Also if the attack has an image twice and misses others.
    rows = torch.tensor([3, 3, 9])
    some = replace(
        found, rows=rows, recovered=found.recovered[rows], originals=found.originals[rows],
        ssim=torch.tensor([0.2, 0.99, 0.98]), recognized=torch.ones(3, dtype=torch.bool),
    )  # fmt: skip
    ceiling = ceiling_of(observation, truth, some)
    assert ceiling.ssim[3] == torch.tensor(0.99)
    assert ceiling.ssim[9] >= 0.98
    assert len(ceiling.ssim) == IMAGES


@pytest.mark.slow
def test_augmented_encodings_have_a_ceiling_unless_there_is_no_mask() -> None:
    private = ImageTable.from_arrays(natural(IMAGES, 1), np.arange(IMAGES) % 5)
    public, scheme = ImageTable.from_arrays(natural(200, 2)), Scheme.cross(6)
    threat = ThreatModel(labels="none", public="none", encodings_per_image=30)
    plain = ceiling_of(*observe(private, public, scheme, threat))
    mirrored = ceiling_of(
        *observe(private, public, scheme, threat, augmentation=Augmentation(flip=True))
    )
    assert mirrored.recognizable == mirrored.total == IMAGES
    assert float(mirrored.ssim.mean()) == pytest.approx(float(plain.ssim.mean()), abs=0.05)
    for crop in (Augmentation(padding=2), Augmentation(padding=2, flip=True)):
        cropped = ceiling_of(*observe(private, public, scheme, threat, augmentation=crop))
        assert cropped.recognizable == IMAGES
        assert float(cropped.ssim.mean()) == pytest.approx(float(plain.ssim.mean()), abs=0.1)
    unmasked = replace(scheme, mask=False)
    with pytest.raises(InstaHideError, match="or a scheme with a mask"):
        ceiling_of(*observe(private, public, unmasked, threat, augmentation=crop))


def test_a_setting_resists_only_where_the_ceiling_is_low_too() -> None:
    assert resists(0, 5, 100)
    assert not resists(0, 6, 100)
    assert not resists(6, 6, 100)

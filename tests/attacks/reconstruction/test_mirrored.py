"""Encodings of images that were mirrored at random: both versions of an image, then one again."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from instahide.attacks.averaging import AveragingAbsolute
from instahide.attacks.base import AssignedImages, EncodingObservation, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.attacks.reconstruction.mirrored import (
    merge_mirror_images,
    mirror_pairs,
    with_mirror_images,
)
from instahide.attacks.refusal import refusal
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.reconstruction import score_reconstruction
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.scheme import Scheme
from tests.attacks.reconstruction.test_end_to_end import tables

IMAGES, COPIES = 15, 20


@cache
def observed(augmentation: Augmentation) -> tuple[EncodingObservation, GroundTruth]:
    private, public = tables(IMAGES)
    threat = ThreatModel(labels="none", public="none", encodings_per_image=COPIES)
    return observe(private, public, Scheme.cross(6), threat, augmentation=augmentation)


def planted(wrong: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image and version of two members of 200 encodings, and names of 2 x 10 versions.

    The names are in random order, and so are the members of an encoding.
    """
    generator = np.random.default_rng(0)
    images = np.stack([generator.choice(10, 2, replace=False) for _ in range(200)])
    versions = generator.integers(2, size=images.shape)
    names = generator.permutation(20).reshape(2, 10)
    members, mirrored = names[versions, images], names[1 - versions, images][:, ::-1]
    random = generator.integers(20, size=members.shape)
    members = np.where(generator.random(members.shape) < wrong, random, members)
    return tuple(map(torch.from_numpy, (members, mirrored.copy(), names)))  # type: ignore[return-value]


def as_sets(pairs: torch.Tensor) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in pairs.tolist()}


def test_the_two_versions_of_an_image_are_found_by_the_encodings_that_hold_them() -> None:
    for wrong in (0.0, 0.2):
        members, mirrored, names = planted(wrong)
        assert as_sets(mirror_pairs(members, mirrored, 20)) == as_sets(names.T)


def test_images_without_a_mirror_image_are_paired_with_what_is_left() -> None:
    members, mirrored = torch.tensor([[0, 3], [0, 3]]), torch.tensor([[1, 3], [1, 3]])
    pairs = mirror_pairs(members, mirrored, 6)
    assert sorted(pairs.flatten().tolist()) == list(range(6))
    assert frozenset((0, 1)) in as_sets(pairs) or frozenset((0, 3)) in as_sets(pairs)


def test_the_surer_version_is_kept_with_the_assignment_of_the_encodings_themselves() -> None:
    members, mirrored, names = planted()
    versions = torch.arange(20.0)[:, None, None, None].expand(20, 3, 4, 4)
    confidence = torch.zeros(20)
    confidence[names[1]] = 0.9
    found = AssignedImages(versions, torch.cat([members, mirrored]), torch.rand(400, 2), confidence)
    merged = merge_mirror_images(found, 0.8)
    assert merged.statistics["recovered"] == merged.statistics["groups"] == 10
    assert set(merged.images[:, 0, 0, 0].long().tolist()) == set(names[1].tolist())
    of_name = {int(name): image for both in names.tolist() for image, name in enumerate(both)}
    kept = [of_name[int(name)] for name in merged.images[:, 0, 0, 0]]
    assert [[kept[i] for i in row] for row in merged.assignment.tolist()] == [
        [of_name[i] for i in row] for row in members.tolist()
    ]
    torch.testing.assert_close(merged.coefficients, found.coefficients[:200])


def test_every_encoding_is_there_twice_and_nothing_else_changes() -> None:
    observation, _ = observed(Augmentation(flip=True))
    soft = replace(observation, labels=torch.rand(len(observation), 5))
    both = with_mirror_images(soft)
    count = len(observation)
    assert not both.augmentation
    torch.testing.assert_close(both.encodings[:count], observation.encodings)
    torch.testing.assert_close(both.encodings[count:].flip(3), observation.encodings)
    assert both.labels is not None
    torch.testing.assert_close(both.labels[:count], both.labels[count:])


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
def test_mirrored_images_are_recovered_by_who_knows_that_they_were_mirrored() -> None:
    observation, truth = observed(Augmentation(flip=True))
    assert truth.moves is not None
    assert 0.4 < truth.moves[:, :, 2].float().mean() < 0.6
    attack = ReconstructionAttack()
    assert attack.applies(observation) is None

    def recovered(seen: EncodingObservation) -> tuple[float, float]:
        found = attack.run(seen, Budget(), no_progress)
        score = score_reconstruction(found, truth, observation.mean, observation.std)
        assert found.confidence is not None
        assert score.summary(found.confidence, RECOVERED)["claimed_rightly"] >= 0
        return score.mass, float(score.ssim.mean())

    mass, ssim = recovered(observation)
    unaware_mass, unaware = recovered(replace(observation, augmentation=Augmentation()))
    assert mass > 0.75
    assert ssim > 0.6
    assert mass > unaware_mass + 0.2
    assert ssim > unaware + 0.15


def test_attacks_that_would_find_less_are_not_run() -> None:
    observation, _ = observed(Augmentation(flip=True))
    grouped = replace(observation, groups=torch.arange(len(observation)) // 2)
    assert "does not undo" in str(refusal(AveragingAbsolute(), grouped))
    unaugmented = replace(grouped, augmentation=Augmentation())
    assert refusal(AveragingAbsolute(), unaugmented) is None
    assert refusal(ReconstructionAttack(), observation) is None


@pytest.mark.parametrize("images", [1, 3])
def test_an_image_without_another_is_kept(images: int) -> None:
    members = torch.arange(images)[:, None]
    pairs = mirror_pairs(members, members, images)
    assert sorted({int(image) for image in pairs.flatten()}) == list(range(images))

"""An observation is what the encoder makes; the truth explains it to the bit, and stays apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.base import (
    EncodingObservation,
    Finding,
    PredictedMasks,
    PublicMatches,
    RecoveredImages,
    ThreatModel,
)
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


def table(count: int, seed: int, labelled: bool = True) -> ImageTable:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count) % 3 if labelled else None)


PRIVATE, PUBLIC = table(10, 0), table(30, 1, labelled=False)
EVERYTHING = ThreatModel(
    grouped=True, known_mixes=7, encodings_per_image=4, shadow=True, public="images"
)


def seen(
    scheme: Scheme, threat: ThreatModel = EVERYTHING
) -> tuple[EncodingObservation, GroundTruth]:
    return observe(PRIVATE, PUBLIC, scheme, threat, shadow=table(5, 2))


@pytest.mark.parametrize("scheme", [Scheme.cross(4), Scheme.inside(3), Scheme.mixup(4)])
def test_the_truth_explains_every_encoding(scheme: Scheme) -> None:
    observation, truth = seen(scheme)
    parts = [truth.images[truth.partners[:, : scheme.private_k]]]
    if scheme.public_k:
        pool = torch.from_numpy(PUBLIC.normalized_like(PRIVATE).normalized())
        parts.append(pool[truth.partners[:, scheme.private_k :]])
    mixes = (torch.cat(parts, dim=1) * truth.coefficients[:, :, None, None, None]).sum(dim=1)
    signed = torch.where(truth.negated, -mixes, mixes)
    torch.testing.assert_close(observation.encodings, signed, rtol=0, atol=1e-5)
    assert observation.known_mixes is not None
    torch.testing.assert_close(observation.known_mixes, mixes[:7], rtol=0, atol=1e-5)
    assert truth.negated.any() == scheme.mask


def test_groups_say_what_belongs_together_and_no_more() -> None:
    observation, truth = seen(Scheme.cross(4))
    assert observation.groups is not None
    assert (truth.group_targets[observation.groups] == truth.partners[:, 0]).all()
    assert observation.groups.bincount().tolist() == [4] * 10


def test_only_what_is_granted_is_seen() -> None:
    observation, _ = seen(Scheme.cross(4), ThreatModel(labels="none", public="none"))
    granted = (field.name for field in dataclasses.fields(observation))
    absent = {name for name in granted if getattr(observation, name) is None}
    assert absent == {"labels", "public", "shadow", "groups", "known_mixes", "known_images"}


def test_coarse_labels_hold_no_coefficient() -> None:
    observation, _ = seen(Scheme.cross(4), ThreatModel(labels="coarse"))
    assert observation.labels is not None
    assert set(observation.labels.unique().tolist()) == {0, 1}


def test_no_two_observations_share_keys() -> None:
    (first, one), (second, two) = seen(Scheme.cross(4)), seen(Scheme.cross(4))
    assert not torch.equal(first.encodings, second.encodings)
    assert not torch.equal(one.coefficients, two.coefficients)


def test_what_is_granted_must_be_there() -> None:
    with pytest.raises(InstaHideError, match="shadow images"):
        observe(PRIVATE, PUBLIC, Scheme.cross(4), ThreatModel(shadow=True))
    with pytest.raises(InstaHideError, match="like the public ones"):
        observe(PRIVATE, PUBLIC, Scheme.cross(4), ThreatModel(public="distribution"))
    with pytest.raises(InstaHideError, match="how many encodings"):
        observe(PRIVATE, PUBLIC, Scheme.cross(4), ThreatModel(encodings_per_image=None))


def test_nothing_secret_is_shown() -> None:
    observation, truth = seen(Scheme.cross(4))
    for shown in (repr(observation), repr(truth), str(Finding(statistics={"a": 1.0}))):
        assert "tensor" not in shown


def test_scores_of_the_truth_itself_and_of_its_opposite() -> None:
    observation, truth = seen(Scheme.cross(4))

    def scored(images: RecoveredImages, public: Tensor, masks: Tensor) -> dict[str, float]:
        """Figures of the images, the public ones and the masks."""
        matches = PublicMatches(public, torch.ones(public.shape), images)
        predicted = PredictedMasks(masks, images)
        first, second = (score(found, observation, truth) for found in (matches, predicted))
        return {**first.summary, **second.summary}

    rows = truth.partners[:, 0]
    right = RecoveredImages(-truth.images[rows] * 3, observation.owners())
    summary = scored(right, truth.partners[:, 2:], truth.negated[7:])
    for name in ("ssim_mean", "identified_mean", "public_found", "mask_bits_right"):
        assert summary[name] == pytest.approx(1), name
    wrong = RecoveredImages(truth.images[(rows + 1) % 10], observation.owners())
    nowhere = torch.full((len(observation), 2), -1)
    summary = scored(wrong, nowhere, ~truth.negated[7:])
    for name in ("identified_mean", "public_found", "mask_bits_right"):
        assert summary[name] == 0, name
    assert score(Finding(), observation, truth).summary == {}


def test_noise_scores_as_nothing_does() -> None:
    observation, truth = seen(Scheme.cross(4))
    noise = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = RecoveredImages(images=noise, target_ids=observation.groups)
    summary = score(found, observation, truth).summary
    assert summary["ssim_mean"] == pytest.approx(summary["ssim_of_nothing"], abs=0.1)
    assert summary["ssim_of_nothing"] < 0.2


def test_labels_that_are_not_classes_are_refused() -> None:
    targets = np.zeros((10, 2), np.float32)
    images = ImageTable.from_arrays(PRIVATE.pixels, targets, task="multi-label")
    with pytest.raises(InstaHideError, match="would find less than labels reveal"):
        observe(images, None, Scheme.inside(2), EVERYTHING)

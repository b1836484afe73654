"""Encodings of volumes are attacked through their slices, which share images and coefficients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from instahide.attacks.base import EncodingObservation, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import ReconstructionAttack
from instahide.attacks.reconstruction.volumes import as_slices, as_volumes
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.ceiling import ceiling_of
from instahide.audit.scoring.matching import Matches, match_to_truth
from instahide.data import ImageTable
from instahide.data.pixels import clip_pixels
from instahide.encryption.scheme import Scheme
from tests.scans import brain_blocks

IMAGES = 24


def observed(scheme: Scheme, copies: int) -> tuple[EncodingObservation, GroundTruth]:
    blocks = brain_blocks(2 * IMAGES)
    private = ImageTable.from_arrays(blocks[::2], np.arange(IMAGES) % 2)
    public = replace(private, pixels=clip_pixels(blocks[1::2], private.value_range))
    threat = ThreatModel(labels="none", encodings_per_image=copies)
    return observe(private, public if scheme.public_k else None, scheme, threat)


def attacked(observation: EncodingObservation, truth: GroundTruth) -> Matches:
    attack = ReconstructionAttack()
    assert attack.applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    assert found.images.shape[1:] == observation.encodings.shape[1:]
    matches = match_to_truth(found, observation, truth)
    assert matches is not None
    return matches


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "recognizable", "ceiling"),
    [
        # In three draws of keys 16 or more of 24 were recovered, and all from the truth.
        pytest.param(Scheme.inside(2), 8, 20, id="inside"),
        # 12 of 24, and 19 from the truth.
        pytest.param(Scheme.cross(4), 5, 14, id="cross", marks=pytest.mark.slow),
    ],
)
def test_volumes_are_recovered_from_their_encodings(
    scheme: Scheme, recognizable: int, ceiling: int
) -> None:
    observation, truth = observed(scheme, copies=20)
    matches = attacked(observation, truth)
    assert matches.recognizable >= recognizable
    best = ceiling_of(observation, truth, matches)
    assert best.recognizable >= max(ceiling, matches.recognizable)


def test_without_a_mask_volumes_are_recovered_exactly() -> None:
    # With 8 encodings of each, two of the images are missed now and then.
    matches = attacked(*observed(Scheme.mixup(2), copies=12))
    assert matches.recognizable == IMAGES
    assert matches.ssim.min() > 0.99


def test_slices_become_channels_and_back() -> None:
    generator = np.random.default_rng(0)
    images = ImageTable.from_arrays(generator.integers(0, 256, (6, 2, 3, 4, 5), np.uint8))
    encodings = torch.from_numpy(images.normalized())
    observation = EncodingObservation(
        Scheme.inside(2), images.mean, images.std, ThreatModel(), encodings, public=images,
        shadow=images, known_mixes=encodings[:2],
    )  # fmt: skip
    flat = as_slices(observation)
    assert flat.encodings.shape == (6, 6, 4, 5)
    assert torch.equal(as_volumes(flat.encodings, images.shape), encodings)
    assert flat.public is not None
    assert flat.known_mixes is not None
    # A slice is normalized as its channel is.
    np.testing.assert_array_equal(flat.public.normalized(), flat.encodings.numpy())
    assert torch.equal(flat.known_mixes, flat.encodings[:2])
    assert flat.mean == tuple(np.repeat(images.mean, 3))
    assert as_slices(flat) is flat

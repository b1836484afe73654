"""The whole attack: near perfect without a mask, good with one, nothing where nothing is shared.

The photographs here are among those that the shipped encoder was trained on, and private and public
crops are of the same ones: these are floors that tell when something breaks, not measurements.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from instahide.attacks.base import AssignedImages, EncodingObservation, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.attacks.reconstruction.pair_encoder import selection
from instahide.attacks.reconstruction.pair_encoder.features import edges_of_square
from instahide.attacks.reconstruction.pair_encoder.network import shipped_encoder
from instahide.attacks.reconstruction.recovery import phase_retrieval
from instahide.attacks.reconstruction.recovery.sign_network import shipped_network
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.reconstruction import ReconstructionScore, score_reconstruction
from instahide.data import ImageTable
from instahide.data.public.crops import PHOTOS, PhotoCrops
from instahide.encryption.scheme import Scheme
from tests.attacks.elsewhere import DEVICE, Elsewhere


@cache
def patches() -> NDArray[np.uint8]:
    """(n, 3, 32, 32) patches of photographs, none of them flat, always the same ones."""
    generator = np.random.default_rng(0)
    crops = PhotoCrops.open(PHOTOS, (3, 32, 32)).draw(generator.random((12_000, 4)))
    return crops[crops.std(axis=(1, 2, 3)) > 40]


@cache
def tables(images: int) -> tuple[ImageTable, ImageTable]:
    """Private and public patches.

    So many public ones that none is in more than a few encodings: of 400, each in 20 of 2,000, the
    attack recovered some, and was right but for their being public.
    """
    crops = patches()
    private = ImageTable.from_arrays(crops[:images], np.arange(images) % 5)
    return private, ImageTable.from_arrays(crops[images:])


@cache
def observed(
    scheme: Scheme, labels: str, images: int = 20, copies: int = 20
) -> tuple[EncodingObservation, GroundTruth]:
    private, public = tables(images)
    threat = ThreatModel(labels=labels, public="none", encodings_per_image=copies)  # type: ignore[arg-type]
    return observe(private, public if scheme.public_k else None, scheme, threat)


def attacked(
    observation: EncodingObservation, truth: GroundTruth
) -> tuple[AssignedImages, ReconstructionScore]:
    attack = ReconstructionAttack()
    assert attack.applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    return found, score_reconstruction(found, truth, observation.mean, observation.std)


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
@pytest.mark.parametrize(("copies", "mass", "ssim"), [(20, 0.85, 0.7), (10, 0.75, 0.5)])
def test_encodings_of_an_image_show_it(copies: int, mass: float, ssim: float) -> None:
    found, score = attacked(*observed(Scheme.cross(6), "none", copies=copies))
    # At 20 copies 0.95 were assigned, with a mean SSIM of 0.89; at 10 copies 0.89 and 0.78.
    assert score.mass > mass
    assert score.ssim.mean() > ssim
    assert found.confidence is not None
    called = found.confidence >= RECOVERED
    assert called.any()
    assert int((called & (score.ssim <= 0.5)).sum()) <= 3


@pytest.mark.usefixtures("same_keys")
def test_an_image_that_is_alone_in_its_mixes_is_recovered() -> None:
    # Of 9 seeds of the attack's own draws, one assigned 0.94 and the others more than 0.98.
    torch.manual_seed(0)
    found, score = attacked(*observed(Scheme.cross(6, private_k=1), "none"))
    assert score.mass > 0.95
    assert score.ssim.mean() > 0.6
    assert found.assignment is not None
    assert found.assignment.shape == (400, 1)


@pytest.mark.slow
def test_four_private_images_are_told_apart() -> None:
    found, score = attacked(*observed(Scheme.inside(4), "none"))
    assert found.assignment is not None
    assert found.assignment.shape == (400, 4)
    assert score.mass > 0.6
    assert score.ssim.mean() > 0.6


def untold(observation: EncodingObservation) -> EncodingObservation:
    """As it is to an attacker who does not know how many private images there are."""
    return replace(observation, threat=replace(observation.threat, encodings_per_image=None))


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
def test_how_many_images_there_are_need_not_be_known() -> None:
    observation, truth = observed(Scheme.cross(6), "none")
    found, score = attacked(untold(observation), truth)
    # In 12 draws of keys 17 to 19 were found, and 0.83 to 0.92 rightly assigned.
    assert 14 <= found.statistics["groups"] <= 21
    assert score.mass > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["soft", "coarse", "none"])
def test_fifty_encodings_of_an_image_show_it(labels: str) -> None:
    found, score = attacked(*observed(Scheme.cross(6), labels, 40, 50))
    assert score.mass > 0.75
    assert score.ssim.mean() > 0.6
    assert found.confidence is not None
    assert score.summary(found.confidence, RECOVERED)["claimed_rightly"] > 0.9


@pytest.mark.parametrize("scheme", [Scheme.plain(), Scheme.mixup(2)], ids=["plain", "mixup"])
@pytest.mark.parametrize("told", [True, False])
def test_without_a_mask_nothing_is_left_to_guess(scheme: Scheme, told: bool) -> None:
    observation, truth = observed(scheme, "none")
    found, score = attacked(observation if told else untold(observation), truth)
    assert len(score.rows) == 20
    assert score.mass > 0.99
    assert score.ssim.min() > 0.99
    assert found.confidence is not None
    assert found.confidence.min() > RECOVERED


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False])
def test_encodings_that_share_nothing_give_nothing_and_the_attack_says_so(told: bool) -> None:
    observation, _ = observed(Scheme.cross(6), "none")
    observation = observation if told else untold(observation)
    # As many images as there could be encodings: whatever is grown into a group is by chance.
    generator = torch.Generator().manual_seed(0)
    alone = torch.randn(observation.encodings.shape, generator=generator)
    found = ReconstructionAttack(rounds=1).run(
        replace(observation, encodings=alone), Budget(), no_progress
    )
    assert found.statistics["recovered"] == 0


def test_a_single_encoding_of_each_image_is_nothing_to_put_together() -> None:
    threat = ThreatModel(public="none")
    for scheme in (Scheme.cross(6), Scheme.inside(4)):
        observation, _ = observed(scheme, "none")
        # As a partner, an image is in further ones.
        assert ReconstructionAttack().applies(replace(observation, threat=threat)) is None
    observation, _ = observed(Scheme.cross(6, private_k=1), "none")
    once = replace(observation, threat=threat)
    assert "a single encoding" in str(ReconstructionAttack().applies(once))


@pytest.mark.slow
def test_a_spent_budget_ends_the_rounds_with_what_there_is() -> None:
    observation, _ = observed(Scheme.cross(6), "none")
    said: list[str] = []
    budget = Budget(0)
    found = ReconstructionAttack().run(observation, budget, lambda what, share: said.append(what))
    assert budget.cut_short
    assert found.images is not None
    assert [what for what in said if "round" in what] == ["recovery and assignment, round 1"]
    assert "final recovery" not in said


def read_networks_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are checked on the device that stands for another one here; and copies are moved."""
    encoder, network = shipped_encoder((3, 32, 32)), deepcopy(shipped_network())
    monkeypatch.setattr(selection, "shipped_encoder", lambda _: encoder)
    monkeypatch.setattr(phase_retrieval, "shipped_network", lambda: network)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [Scheme.inside(2), Scheme.mixup(2)], ids=["inside", "mixup"])
def test_all_of_it_can_run_on_another_device(
    scheme: Scheme, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observation, _ = observed(scheme, "soft", 6, 8)
    read_networks_beforehand(monkeypatch)
    with Elsewhere():
        attack = ReconstructionAttack(rounds=1, folder=tmp_path, device=DEVICE)
        found = attack.run(observation, Budget(), no_progress)
        # From its file, if it has one, it goes on there, too.
        again = attack.run(observation, Budget(), no_progress)
    assert found.images is not None
    assert again.images is not None
    assert found.images.device.type == "cpu"
    torch.testing.assert_close(again.images, found.images)


@pytest.mark.slow
def test_features_may_come_from_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    read_networks_beforehand(monkeypatch)
    observation, _ = observed(Scheme.inside(2), "none", 6, 8)
    features = edges_of_square(observation.encodings)
    with Elsewhere():
        attack = ReconstructionAttack(rounds=1, features=lambda _: features, device=DEVICE)
        assert attack.run(observation, Budget(), no_progress).images is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("scheme", [Scheme.cross(6), Scheme.mixup(2)], ids=["cross", "mixup"])
def test_a_gpu_recovers_as_much(scheme: Scheme) -> None:
    observation, truth = observed(scheme, "soft", 40, 50)
    here, there = (
        score_reconstruction(
            ReconstructionAttack(device=device).run(observation, Budget(), no_progress),
            truth, observation.mean, observation.std,
        )
        for device in ("cpu", "cuda")
    )  # fmt: skip
    assert abs(here.mass - there.mass) < 0.02
    assert abs(here.ssim.mean() - there.ssim.mean()) < 0.05


@pytest.mark.slow
def test_the_same_observation_gives_the_same_images() -> None:
    observation, _ = observed(Scheme.mixup(2), "none")
    first, second = (
        ReconstructionAttack().run(observation, Budget(), no_progress).images for _ in range(2)
    )
    assert first is not None
    assert second is not None
    torch.testing.assert_close(first, second)

"""A trained network takes Mixups apart, and is measured where there is a mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from instahide.attacks.base import EncodingObservation, RecoveredImages, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.demixing import Demixing
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable, open_split
from instahide.encryption.scheme import Scheme
from tests.attacks.conftest import natural
from tests.attacks.reconstruction.test_end_to_end import tables
from tests.waiting import ticks


@pytest.fixture(scope="module")
def digits() -> tuple[ImageTable, ImageTable]:
    """Private digits and the attacker's own."""
    train = open_split("digits").train
    return train.subset(slice(0, 100)), train.subset(slice(100, None))


def seen(
    digits: tuple[ImageTable, ImageTable], scheme: Scheme, public: ImageTable | None = None
) -> tuple[EncodingObservation, GroundTruth]:
    return observe(digits[0], public, scheme, ThreatModel(shadow=True), shadow=digits[1])


def figures(
    attack: Demixing, observation: EncodingObservation, truth: GroundTruth
) -> dict[str, float]:
    assert attack.applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    return dict(found.statistics) | dict(score(found, observation, truth).summary)


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
def test_a_mixup_is_taken_apart(digits: tuple[ImageTable, ImageTable]) -> None:
    """Some seconds of training gain 0.06 to 0.07 of SSIM."""
    found = figures(Demixing(steps=250), *seen(digits, Scheme.mixup(4)))
    assert found["ssim_mean"] > found["ssim_of_encoding"] + 0.03
    assert found["ssim_of_encoding"] > found["ssim_of_nothing"] + 0.1
    assert found["steps"] == 250


@pytest.mark.slow
def test_under_the_mask_less_comes_back(digits: tuple[ImageTable, ImageTable]) -> None:
    mixup, masked = (
        figures(Demixing(steps=100), *seen(digits, scheme))
        for scheme in (Scheme.mixup(4), Scheme.inside(4))
    )
    assert masked["ssim_mean"] < mixup["ssim_mean"] - 0.05


@pytest.fixture(scope="module")
def photographs() -> tuple[ImageTable, ImageTable]:
    """Private and public crops of photographs."""
    return tables(30)


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
def test_the_signs_of_color_images_are_predicted_without_images_of_the_attacker(
    photographs: tuple[ImageTable, ImageTable],
) -> None:
    """Among the photographs that the sign network was trained on: a floor, not a measurement."""
    private, public = photographs
    threat = ThreatModel(labels="none", encodings_per_image=8)
    observation, truth = observe(private, public, Scheme.cross(4), threat)
    found = figures(Demixing(), observation, truth)
    assert "steps" not in found
    # From one encoding of each image it was 0.1, with a deviation of 0.025; here there are eight.
    assert found["ssim_mean"] > found["ssim_of_encoding"] + 0.04
    assert found["ssim_of_encoding"] > found["ssim_of_nothing"]


@pytest.mark.slow
def test_training_starts_from_the_predicted_signs(
    photographs: tuple[ImageTable, ImageTable],
) -> None:
    private, public = photographs
    shadow = public.subset(slice(0, 200))
    threat = ThreatModel(labels="none", shadow=True)
    observation, truth = observe(private, public, Scheme.cross(4), threat, shadow=shadow)
    untrained = Demixing().run(observation, Budget(0), no_progress)
    alone = Demixing().run(replace(observation, shadow=None), Budget(), no_progress)
    torch.testing.assert_close(untrained.images, alone.images, rtol=0, atol=1e-4)
    assert untrained.statistics["steps"] == 0
    trained = figures(Demixing(steps=4), observation, truth)
    assert trained["steps"] == 4
    assert trained["ssim_mean"] > trained["ssim_of_nothing"]


def test_public_images_are_learned_to_be_left_out() -> None:
    """Public images are of another kind; the shadow batches hold them and never ask for them."""
    shadow, public = (ImageTable.from_arrays(natural(count, 5)) for count in (40, 30))
    batch = next(shadow_batches(shadow, Scheme.cross(4), public=public, images=20, encodings=20))
    assert batch.images.shape == (20, 3, 12, 12)
    assert batch.coefficients.shape == (20, 20)
    assert ((batch.coefficients > 0).sum(dim=1) == 2).all()
    # What is left when the two private images are taken out again is not theirs alone.
    total = batch.coefficients.sum(dim=1)
    assert (total < 1).all()
    assert (total >= 0.3 - 1e-5).all()


@pytest.mark.slow
def test_shadow_coefficients_explain_the_encodings() -> None:
    shadow = ImageTable.from_arrays(natural(40, 5))
    batch = next(shadow_batches(shadow, Scheme.mixup(3), images=10, encodings=15))
    mixes = torch.einsum("nm,mchw->nchw", batch.coefficients, batch.images)
    torch.testing.assert_close(batch.encodings, mixes, rtol=0, atol=1e-5)


def test_the_strongest_image_is_the_one_that_is_scored(
    digits: tuple[ImageTable, ImageTable],
) -> None:
    observation, truth = seen(digits, Scheme.inside(4))
    strongest = truth.partners.gather(1, truth.coefficients.argmax(dim=1, keepdim=True))[:, 0]
    assert (strongest != truth.partners[:, 0]).any()
    of = torch.arange(len(observation))
    found = RecoveredImages(images=truth.images[strongest], target_ids=of, dominant=True)
    assert score(found, observation, truth).summary["ssim_mean"] == pytest.approx(1)


def test_the_budget_is_kept(digits: tuple[ImageTable, ImageTable]) -> None:
    observation, _ = seen(digits, Scheme.mixup(2))
    heard: list[float] = []
    budget = Budget(40, clock=ticks())
    found = Demixing().run(observation, budget, lambda what, share: heard.append(share))
    assert budget.left == 0
    assert budget.cut_short
    assert heard == sorted(heard)
    assert 0 < found.statistics["steps"] == len(heard)
    untrained = Demixing().run(observation, Budget(0), no_progress)
    torch.testing.assert_close(untrained.images, observation.encodings)


def test_it_needs_mixes_and_images_of_its_own(digits: tuple[ImageTable, ImageTable]) -> None:
    plain, _ = seen(digits, Scheme.plain())
    alone, _ = observe(digits[0], None, Scheme.mixup(4), ThreatModel())
    few, _ = observe(
        digits[0],
        None,
        Scheme.mixup(4),
        ThreatModel(shadow=True),
        shadow=digits[1].subset(np.arange(3)),
    )
    for observation, reason in (
        (plain, "does not mix"),
        (alone, "no shadow images"),
        (few, "too few"),
    ):
        assert reason in str(Demixing().applies(observation))

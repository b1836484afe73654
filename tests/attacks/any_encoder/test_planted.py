"""Attacks on any encoder find everything in plain images, and nothing in noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide import open_split
from instahide.attacks.any_encoder.distinguishing import Distinguishing
from instahide.attacks.any_encoder.inversion import LearnedInversion
from instahide.attacks.any_encoder.linkage import KnownImageLinkage, Linkage
from instahide.attacks.base import EncodingObservation, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.demixing import Demixing
from instahide.attacks.refusal import refusal
from instahide.audit.ground_truth import observe, observe_pairs
from instahide.audit.scoring.scores import score
from instahide.encryption.encoders.base import ImageEncoder, InstanceEncoder
from instahide.encryption.encoders.registry import encoder_named
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.errors import SchemeError
from tests.attacks.any_encoder.planted import Identity, PureNoise
from tests.waiting import ticks

IMAGES, COPIES, STEPS = 60, 4, 25
#: A right attack on noise fails a test with this probability.
CHANCE = 1e-6


def figures(encoder: InstanceEncoder, attack: Any) -> dict[str, float]:
    digits = open_split("digits").train
    private, shadow = digits.subset(np.arange(IMAGES)), digits.subset(np.arange(IMAGES, 1400))
    torch.manual_seed(0)
    threat = ThreatModel(public="none", shadow=True, encodings_per_image=COPIES, known_images=True)
    if isinstance(attack, Distinguishing):
        seen, truth = observe_pairs(private, None, encoder, threat, shadow=shadow, rounds=4)
    else:
        seen, truth = observe(private, None, encoder, threat, shadow=shadow)
    assert refusal(attack, seen) is None
    found = attack.run(seen, Budget(), no_progress)
    return {**found.statistics, **score(found, seen, truth).summary}


@pytest.mark.slow
def test_plain_images_are_inverted() -> None:
    found = figures(Identity(), LearnedInversion(STEPS))
    assert found["images_recognizable"] == IMAGES
    assert found["recognizable_by_chance"] < IMAGES / 4


def test_plain_images_are_linked() -> None:
    found = figures(Identity(), Linkage(STEPS))
    assert found["linkage_auc_low"] > 0.99
    assert found["linkage_true_at_1_percent_false"] > 0.8


@pytest.mark.slow
def test_plain_images_are_matched_with_known_images() -> None:
    # 25 steps of training leave a few images unmatched; by chance it would be one of sixty.
    found = figures(Identity(), KnownImageLinkage(STEPS))
    assert found["matched"] > 0.8
    assert found["matched_by_chance"] == pytest.approx(1 / IMAGES)


@pytest.mark.slow
def test_plain_images_are_distinguished() -> None:
    found = figures(Identity(), Distinguishing(STEPS))
    assert found["distinguished"] > 0.85
    assert found["distinguished_low"] > 0.7


@pytest.mark.slow
def test_noise_is_not_inverted_more_often_than_by_chance() -> None:
    found = figures(PureNoise(), LearnedInversion(STEPS))
    assert found["images_recognizable"] <= found["recognizable_by_chance"] + 4


@pytest.mark.slow
def test_noise_is_not_linked() -> None:
    found = figures(PureNoise(), Linkage(STEPS))
    # The area has a deviation of about 0.04 for 120 pairs of each kind.
    assert abs(found["linkage_auc"] - 0.5) < 0.2
    assert found["linkage_auc_low"] < 0.6


@pytest.mark.parametrize(
    ("attack", "name"),
    [(KnownImageLinkage(STEPS), "matched"), (Distinguishing(STEPS), "distinguished")],
)
def test_noise_is_neither_matched_nor_distinguished(attack: Any, name: str) -> None:
    found = figures(PureNoise(), attack)
    assert found[f"{name}_p"] > CHANCE
    assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["neuracrypt", "block-scrambling", "dp-instahide", "mixup"])
def test_they_run_on_every_shape_of_encodings(name: str) -> None:
    encoder = encoder_named(name)
    for attack in (LearnedInversion(2), Linkage(2), KnownImageLinkage(2), Distinguishing(2)):
        found = figures(encoder, attack)
        assert found["steps"] == 2


@pytest.mark.slow
def test_copies_under_one_key_of_the_data_set_are_linked() -> None:
    """Block scrambling repeats itself: nothing needs to be learned."""
    found = figures(encoder_named("block-scrambling"), Linkage(STEPS))
    assert found["linkage_auc"] > 0.99


def _seen(encoder: ImageEncoder, **changes: Any) -> EncodingObservation:
    digits = open_split("digits").train
    threat = ThreatModel(**{"public": "none", "encodings_per_image": 2, **changes})
    shadow = digits.subset(np.arange(30, 90))
    return observe(digits.subset(np.arange(20)), None, encoder, threat, shadow=shadow)[0]


@pytest.mark.slow
@pytest.mark.parametrize("attack", [LearnedInversion(), Linkage(), KnownImageLinkage()])
def test_a_training_that_time_ended_is_cut_short(attack: Any) -> None:
    seen = _seen(Identity(), shadow=True, known_images=True)
    budget = Budget(100, clock=ticks())
    found = attack.run(seen, budget, no_progress)
    assert 0 < found.statistics["steps"] < attack.steps
    # The rest of the time was for the use of the network, which needs less.
    assert budget.left > 0
    assert budget.cut_short
    enough = Budget(60, clock=ticks())
    assert replace(attack, steps=2).run(seen, enough, no_progress).statistics["steps"] == 2
    assert not enough.cut_short


def test_what_an_attacker_lacks_is_said() -> None:
    assert "no shadow images" in str(refusal(LearnedInversion(), _seen(Identity())))
    known = _seen(Identity(), shadow=True)
    assert "does not have the private images" in str(refusal(KnownImageLinkage(), known))
    once = _seen(Identity(), shadow=True, encodings_per_image=1)
    assert "only one encoding" in str(refusal(Linkage(), once))


def test_an_attack_on_the_structure_of_instahide_says_so() -> None:
    seen = _seen(Identity(), shadow=True)
    assert "structure of InstaHide" in str(refusal(Demixing(), seen))
    assert "identity" in str(refusal(Demixing(), seen))
    with pytest.raises(SchemeError, match="no scheme"):
        _ = seen.scheme


@dataclass(frozen=True)
class Forgetful(Identity):
    """Fails in one of its methods."""

    method: str = "draw_key"

    def draw_key(self, shape: tuple[int, ...], random: SecretRandom) -> Any:
        return self._fail_in("draw_key")

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        self._fail_in("encode")
        return images

    def _fail_in(self, method: str) -> None:
        if method == self.method:
            raise KeyError("image 7 is not in the cache")


@pytest.mark.parametrize("method", ["draw_key", "encode"])
def test_an_encoder_that_fails_for_the_images_of_an_attacker_is_named(method: str) -> None:
    seen = replace(_seen(Identity(), shadow=True), encoder=Forgetful(method))
    with pytest.raises(SchemeError, match=f"encoder identity failed in `{method}`"):
        LearnedInversion(1).run(seen, Budget(), no_progress)

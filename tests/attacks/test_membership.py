"""What networks were trained on shows on plain images; figures agree with counting by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from instahide.attacks.base import MembershipScores, NetworkObservation, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.membership import (
    LikelihoodRatio,
    LossThreshold,
    confidences,
    likelihood_ratios,
)
from instahide.attacks.refusal import refusal
from instahide.attacks.shadow_models import Recipe, train_shadow_model
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring import membership
from instahide.audit.scoring.membership import with_candidates
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.waiting import ticks

SIZE = 60
RECIPE = Recipe(epochs=40, batch_size=20, learning_rate=0.1)


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested elsewhere."""
    monkeypatch.setattr(membership, "DRAWS", 50)


def noise(count: int, seed: int) -> ImageTable:
    """Images whose classes can only be learned by heart."""
    generator = np.random.default_rng(seed)
    return ImageTable.from_arrays(
        generator.integers(0, 256, (count, 1, 6, 6), np.uint8), np.arange(count) % 4
    )


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 64), nn.ReLU(), nn.Linear(64, 4))


@cache
def trained(scheme: Scheme) -> tuple[NetworkObservation, GroundTruth]:
    """A network trained on one half of some images, and all of them to ask it about."""
    members, others = noise(SIZE, 0), noise(SIZE, 1).normalized_like(noise(SIZE, 0))
    victim = train_shadow_model(network(), members, None, scheme, RECIPE, Budget())
    seen = observe(members, None, scheme, ThreatModel(public="none"))
    return with_candidates(seen, victim, members, others)


def figures(attack: LossThreshold | LikelihoodRatio, scheme: Scheme) -> dict[str, float]:
    observation, truth = trained(scheme)
    assert attack.applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    return dict(found.statistics) | dict(score(found, observation, truth).summary)


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
@pytest.mark.parametrize("attack", [LossThreshold(), LikelihoodRatio(networks=8, recipe=RECIPE)])
def test_a_network_that_learned_by_heart_tells_all(
    attack: LossThreshold | LikelihoodRatio,
) -> None:
    found = figures(attack, Scheme.plain())
    assert found["membership_auc"] > 0.95
    assert found["membership_auc_low"] <= found["membership_auc"] <= found["membership_auc_high"]


@pytest.mark.slow
def test_a_network_that_never_saw_them_tells_nothing() -> None:
    """The area's deviation is 0.053 where there is nothing to tell: 5 of them, once in 10^6."""
    observation, truth = trained(Scheme.plain())
    third = noise(SIZE, 2).normalized_like(observation.candidates)
    blank = train_shadow_model(network(), third, None, Scheme.plain(), RECIPE, Budget())
    seen, secret = with_candidates((observation, truth), blank, noise(SIZE, 0), noise(SIZE, 1))
    for attack in (LossThreshold(), LikelihoodRatio(networks=8, recipe=RECIPE)):
        found = attack.run(seen, Budget(), no_progress)
        assert abs(score(found, seen, secret).summary["membership_auc"] - 0.5) < 0.265


@pytest.mark.slow
def test_shadow_networks_train_on_encodings_under_other_keys() -> None:
    """Under InstaHide these networks give less away, and the attacker knows it: see the gap."""
    plain, masked = (
        figures(LikelihoodRatio(networks=4, recipe=RECIPE), scheme)
        for scheme in (Scheme.plain(), Scheme.inside(4))
    )
    assert masked["membership_auc"] < plain["membership_auc"]
    assert masked["gap"] < plain["gap"]


def test_a_trainer_of_ones_own_gets_one_half_and_then_the_other() -> None:
    observation, _ = trained(Scheme.plain())
    given: list[ImageTable] = []

    def train(images: ImageTable) -> nn.Module:
        given.append(images)
        return network()

    found = LikelihoodRatio(networks=4, train=train).run(observation, Budget(), no_progress)
    assert [len(images) for images in given] == [SIZE] * 4
    for one, other in (given[:2], given[2:]):
        both = np.concatenate([one.pixels, other.pixels])
        assert len(np.unique(both, axis=0)) == 2 * SIZE
    assert isinstance(found, MembershipScores)
    assert found.scores.shape == (2 * SIZE,)


def test_the_budget_is_kept() -> None:
    observation, _ = trained(Scheme.plain())
    slow = LikelihoodRatio(recipe=Recipe(epochs=10_000))
    budget = Budget(4, clock=ticks())
    found = slow.run(observation, budget, no_progress)
    assert budget.cut_short
    assert not isinstance(found, MembershipScores)
    assert found.statistics["networks"] == 0


def test_confidences_are_logits_of_the_right_class() -> None:
    images, model = noise(9, 3), network().train()
    found = confidences(model, images)
    with torch.no_grad():
        shares = model(torch.from_numpy(images.normalized())).softmax(dim=1)
    right = shares[torch.arange(9), torch.from_numpy(images.labels)]
    torch.testing.assert_close(found, (right / (1 - right)).log(), rtol=1e-3, atol=1e-3)
    assert model.training


def test_likelihood_ratios_agree_with_two_normal_laws() -> None:
    """The attack's formula against SciPy's densities, image by image."""
    from scipy.stats import norm

    generator = torch.Generator().manual_seed(0)
    learned = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]).bool().repeat(1, 5)
    confident = torch.randn(4, 10, generator=generator) + 2 * learned
    asked = torch.randn(10, generator=generator)
    ratios, gap = likelihood_ratios(asked, confident, learned)
    means, spreads = [], []
    for which in (learned, ~learned):
        groups = [confident[which[:, image], image].numpy() for image in range(10)]
        means.append([group.mean() for group in groups])
        # Pooled, each image having lost one degree of freedom to its mean.
        spreads.append(np.sqrt(sum(group.var() * 2 for group in groups) / (20 - 10)))
    expected = norm.logpdf(asked, means[0], spreads[0]) - norm.logpdf(asked, means[1], spreads[1])
    np.testing.assert_allclose(ratios, expected, rtol=1e-3, atol=1e-3)
    assert gap == pytest.approx(np.mean(np.subtract(*means)) / spreads[1], rel=1e-3)


def test_it_needs_a_trained_network_and_images_to_ask_about() -> None:
    alone, _ = observe(noise(10, 0), None, Scheme.plain(), ThreatModel())
    assert "no trained network" in str(refusal(LossThreshold(), alone))
    assert "no trained network" in str(refusal(LikelihoodRatio(), alone))
    cross = Scheme.cross(4)
    seen = observe(noise(10, 0), noise(20, 1), cross, ThreatModel(public="none"))
    observation, _ = with_candidates(seen, network(), noise(10, 0), noise(10, 1))
    assert LossThreshold().applies(observation) is None
    assert "no public images" in str(LikelihoodRatio().applies(observation))


def test_new_weights_leave_the_victim_as_it_is() -> None:
    victim = network()
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    shadow = train_shadow_model(
        victim, noise(8, 0), None, Scheme.inside(2), Recipe(epochs=1), Budget()
    )
    for name, value in victim.state_dict().items():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, shadow.state_dict()[name])

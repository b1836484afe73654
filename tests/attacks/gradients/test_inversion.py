"""Plain images come back from a gradient; of InstaHide the encoding does, not the image."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from instahide.attacks.base import (
    Attack,
    LocalTraining,
    ThreatModel,
    UpdateObservation,
    no_progress,
)
from instahide.attacks.budget import Budget
from instahide.attacks.gradients.dlg import DeepLeakage
from instahide.attacks.gradients.inverting import InvertingGradients, InvertingStatistics
from instahide.attacks.gradients.lenet import lenet
from instahide.attacks.refusal import refusal
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.attacks.gradients.conftest import Seen, with_batch_norm

QUICK = InvertingGradients(iterations=400, starts=1)


def figures(
    attack: Attack[UpdateObservation], seen: tuple[UpdateObservation, GroundTruth]
) -> dict[str, float]:
    observation, truth = seen
    assert attack.applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    return {**found.statistics, **score(found, observation, truth).summary}


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["soft", "none"])
def test_dlg_recovers_a_plain_image(seen: Seen, labels: str) -> None:
    found = figures(DeepLeakage(), seen(labels=labels))
    assert found["encoding_psnr_best"] > 25
    assert found["ssim_mean"] > 0.9
    assert found["identified_mean"] == 1
    if labels == "none":
        assert found["class_sets_right"] == 0  # A softmax is never quite a single class.


@pytest.mark.slow
def test_inverting_gradients_recovers_a_plain_image(seen: Seen) -> None:
    # Digits of 8 x 8 pixels are less smooth than photographs.
    attack = InvertingGradients(iterations=800, starts=1, smoothness=1e-4)
    found = figures(attack, seen(labels="none"))
    assert found["encoding_psnr_best"] > 20
    assert found["identified_mean"] == 1
    assert found["class_sets_right"] == 1


def test_of_instahide_the_encoding_is_recovered_and_the_image_is_not(seen: Seen) -> None:
    plain, hidden = (figures(DeepLeakage(), seen(scheme)) for scheme in (None, Scheme.inside(4)))
    assert hidden["encoding_psnr_best"] > 25
    assert hidden["ssim_mean"] < plain["ssim_mean"] - 0.3


@pytest.mark.slow
def test_several_local_steps_are_undone(seen: Seen) -> None:
    training = LocalTraining(images=2, batch_size=1, steps=2, learning_rate=0.01)
    found = figures(DeepLeakage(), seen(training=training))
    assert found["encoding_psnr_mean"] > 20
    assert found["identified_mean"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("train_mode", [False, True], ids=["eval", "train"])
def test_batch_norm_is_gone_through_in_the_mode_of_the_participant(
    seen: Seen, train_mode: bool
) -> None:
    training = LocalTraining(images=2, batch_size=2, train_mode=train_mode)
    observation, truth = seen(training=training, network=with_batch_norm(trained=True))
    found = figures(QUICK, (observation, truth))
    assert found["identified_mean"] == 1


@pytest.mark.slow
def test_statistics_of_the_batch_help(seen: Seen) -> None:
    training = LocalTraining(images=2, batch_size=2, train_mode=True)
    case = seen(training=training, network=with_batch_norm(), buffers=True)
    without = figures(InvertingGradients(iterations=150, starts=1), case)
    having = figures(InvertingStatistics(iterations=150, starts=1, statistics=0.01), case)
    assert having["encoding_mse_mean"] < without["encoding_mse_mean"]


@pytest.mark.parametrize(
    "attack", [DeepLeakage(rounds=2, starts=1), dataclasses.replace(QUICK, iterations=20)]
)
def test_a_seed_decides_and_the_global_generator_does_not(seen: Seen, attack: Attack) -> None:
    observation, _ = seen()
    images = []
    for noise in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise)
            images.append(attack.run(observation, Budget(), no_progress).images)
    assert torch.equal(*images)
    other = dataclasses.replace(attack, seed=1)  # type: ignore[type-var]
    assert not torch.equal(images[0], other.run(observation, Budget(), no_progress).images)


@pytest.mark.parametrize("attack", [DeepLeakage(), InvertingGradients()])
def test_a_budget_ends_it_with_what_there_is(seen: Seen, attack: Attack) -> None:
    said: list[float] = []
    observation, _ = seen()
    budget = Budget(0)
    found = attack.run(observation, budget, lambda what, share: said.append(share))
    assert budget.cut_short
    assert found.images.shape == (1, 1, 8, 8)
    assert found.statistics["starts"] == 1
    assert said[-1] == 1


def test_it_says_why_it_does_not_apply(seen: Seen, digits: ImageTable) -> None:
    observation, _ = observe(digits, None, Scheme.inside(4), ThreatModel(public="none"))
    for attack in (DeepLeakage(), InvertingGradients()):
        assert "no update" in str(refusal(attack, observation))
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    observation, _ = seen(network=bare, labels="none")
    assert "recover them from" in str(InvertingGradients().applies(observation))
    assert DeepLeakage().applies(observation) is None
    strange = dataclasses.replace(observation, network=lenet((1, 8, 8), 10, seed=0))
    assert "not one of this network" in str(DeepLeakage().applies(strange))
    random = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))
    observation, _ = seen(network=random, training=LocalTraining(train_mode=True))
    assert "at random" in str(DeepLeakage().applies(observation))
    observation, _ = seen()
    assert "no informative batch norm statistics" in str(InvertingStatistics().applies(observation))

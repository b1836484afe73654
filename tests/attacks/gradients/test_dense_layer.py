"""Encodings come back exactly from updates of a network that begins with a dense layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from instahide.attacks.base import LocalTraining, UpdateObservation, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.gradients.dense_layer import DenseLayer, first_layer
from instahide.attacks.gradients.perceptron import perceptron
from instahide.audit.client_update import observe_update
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.attacks.conftest import natural
from tests.attacks.gradients.conftest import Seen

EXACT = 60.0


@pytest.fixture(scope="module")
def photographs() -> ImageTable:
    return ImageTable.from_arrays(natural(40, 1, 16), np.arange(40) % 5)


def figures(observation: UpdateObservation, truth: GroundTruth) -> dict[str, float]:
    attack = DenseLayer()
    assert attack.applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    scored = score(found, observation, truth)
    worst = float(scored.each["encoding_psnr"].min())
    return {**found.statistics, **scored.summary, "worst": worst}


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        LocalTraining(),
        LocalTraining(images=10, batch_size=10),
        LocalTraining(images=12, batch_size=3, steps=4, learning_rate=0.1),
        LocalTraining(images=6, batch_size=3, steps=6, learning_rate=0.1),
    ],
    ids=["one", "batch", "epoch", "several epochs"],
)
@pytest.mark.parametrize("scheme", [Scheme.inside(4), Scheme.plain()], ids=["inside", "plain"])
def test_every_encoding_is_recovered_exactly(
    photographs: ImageTable, scheme: Scheme, training: LocalTraining
) -> None:
    network = perceptron((3, 16, 16), 5, units=128, seed=0)
    rows = np.arange(training.images)
    found = figures(
        *observe_update(photographs, None, scheme, network, rows, training, labels="none")
    )
    assert found["worst"] > EXACT
    assert found["confirmed"] == 1


@pytest.mark.slow
def test_labels_of_a_gradient_are_exact(photographs: ImageTable) -> None:
    training = LocalTraining(images=10, batch_size=10)
    network = perceptron((3, 16, 16), 5, units=128, seed=0)
    public = ImageTable.from_arrays(natural(50, 2, 16))
    for scheme in (Scheme.inside(4), Scheme.cross(4), Scheme.cross(4, label_mode="renormalised")):
        observation, truth = observe_update(
            photographs, public, scheme, network, np.arange(10), training, labels="none"
        )
        found = DenseLayer().run(observation, Budget(), no_progress)
        summary = score(found, observation, truth).summary
        if scheme.label_mode == "soft":
            assert summary["coefficient_error"] < 0.02
        else:
            assert found.class_coefficients is not None
            torch.testing.assert_close(found.class_coefficients.sum(dim=1), torch.ones(10))


def test_too_many_encodings_are_reported_as_not_confirmed(photographs: ImageTable) -> None:
    training = LocalTraining(images=40, batch_size=40)
    network = perceptron((3, 16, 16), 5, units=160, seed=0)
    observation, truth = observe_update(
        photographs, None, Scheme.inside(4), network, np.arange(40), training, labels="none"
    )
    found = DenseLayer(rounds=0).run(observation, Budget(), no_progress)
    assert found.statistics["confirmed"] < 0.5
    assert score(found, observation, truth).summary["encoding_psnr_mean"] < 25


def test_it_does_not_apply_elsewhere(seen: Seen) -> None:
    observation, _ = seen()
    assert first_layer(observation) is None
    assert "dense layer" in str(DenseLayer().applies(observation))
    network = perceptron((1, 8, 8), 10, units=16, seed=0)
    assert DenseLayer().applies(seen(network=network)[0]) is None
    many = seen(training=LocalTraining(images=5, batch_size=5), network=network)[0]
    assert "too few" in str(DenseLayer().applies(many))


def test_a_dense_layer_behind_another_is_not_the_first(seen: Seen) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(64, 10))
    assert first_layer(seen(network=network)[0]) is None
    observation, _ = seen(network=perceptron((1, 8, 8), 10, units=16, seed=0))
    assert first_layer(observation) == "1"
    values = {n: v for n, v in observation.update.values.items() if n != "1.bias"}
    hidden = dataclasses.replace(
        observation, update=dataclasses.replace(observation.update, values=values)
    )
    assert first_layer(hidden) is None

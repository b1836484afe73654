"""A replay of the participant's training on its own encodings gives what it sent."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from instahide.attacks.base import LocalTraining, Update, require
from instahide.attacks.gradients.replay import Replay, cosine_distance, squared_distance
from instahide.encryption.scheme import Scheme
from tests.attacks.gradients.conftest import Seen, with_batch_norm

TRAININGS = {
    "gradient": LocalTraining(),
    "batch": LocalTraining(images=4, batch_size=4),
    "steps": LocalTraining(images=4, batch_size=2, steps=2, learning_rate=0.1),
    "epochs": LocalTraining(images=3, batch_size=2, steps=5, learning_rate=0.1),
}


def unexplained(replay: Replay, images: Tensor, labels: Tensor) -> float:
    """Share of what was sent that these images do not explain."""
    return float(squared_distance(replay.update(images, labels), replay.sent).detach())


@pytest.mark.parametrize("train_mode", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("scheme", [Scheme.plain(), Scheme.inside(4)], ids=["plain", "instahide"])
@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
def test_the_truth_explains_what_was_sent(
    seen: Seen, training: LocalTraining, scheme: Scheme, train_mode: bool
) -> None:
    training = LocalTraining(**{**vars(training), "train_mode": train_mode})
    observation, truth = seen(scheme, training, with_batch_norm(trained=True))
    replay = Replay(observation.network, observation.update)
    encodings, labels = require(truth.encodings).double(), require(observation.labels).double()
    # The participant trained by PyTorch's own optimiser, in single precision.
    assert unexplained(replay, encodings, labels) < 1e-8
    assert unexplained(replay, encodings.flip(2), labels) > 1e-4


def test_the_wrong_mode_of_batch_norm_does_not_explain_it(seen: Seen) -> None:
    training = LocalTraining(images=4, batch_size=4, train_mode=True)
    observation, truth = seen(training=training, network=with_batch_norm(trained=True))
    update = observation.update
    other = Update(update.values, LocalTraining(images=4, batch_size=4, train_mode=False))
    replay = Replay(observation.network, other)
    labels = require(observation.labels).double()
    assert unexplained(replay, require(truth.encodings).double(), labels) > 1e-2


def test_neither_network_nor_global_generator_is_touched(seen: Seen) -> None:
    network = with_batch_norm()
    before, mode = copy.deepcopy(network.state_dict()), network.training
    random = torch.get_rng_state()
    observation, truth = seen(
        training=LocalTraining(images=2, batch_size=2, train_mode=True), network=network
    )
    replay = Replay(network, observation.update)
    replay.update(require(truth.encodings).double(), require(observation.labels).double())
    assert network.training == mode
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_what_a_participant_did_not_train_is_not_compared() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    replay = Replay(network, Update({"2.bias": torch.ones(2)}, LocalTraining()))
    found = replay.update(torch.ones(1, 1, 2, 2).double(), torch.eye(2)[:1].double())
    assert set(found) == {"2.bias"}


def test_distances_are_what_they_are_called() -> None:
    sent = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    twice = {name: 2 * value for name, value in sent.items()}
    assert float(squared_distance(sent, sent)) == 0
    assert float(squared_distance(twice, sent)) == pytest.approx(1)
    assert float(cosine_distance(twice, sent)) == pytest.approx(0, abs=1e-6)
    across: dict[str, Tensor] = {"a": torch.tensor([0.0, 1.0]), "b": torch.zeros(1, 1)}
    assert float(cosine_distance(across, sent)) == pytest.approx(1)

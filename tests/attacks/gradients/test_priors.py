"""Priors: smoothness that a mask does not change, and what batch norm lets out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instahide.attacks.base import LocalTraining, require
from instahide.attacks.gradients.priors import (
    FeatureStatistics,
    known_statistics,
    total_variation,
)
from instahide.attacks.gradients.replay import Replay
from tests.attacks.gradients.conftest import Seen, with_batch_norm


def test_total_variation_is_the_mean_step_down_and_across() -> None:
    image = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])
    assert float(total_variation(image)) == pytest.approx((0 + 2) / 2 + (1 + 3) / 2)


def test_running_statistics_after_one_batch_are_those_of_the_batch(seen: Seen) -> None:
    """The first layer's, where they can be worked out by hand, from what was sent alone."""
    training = LocalTraining(images=4, batch_size=4, train_mode=True)
    observation, truth = seen(
        training=training, network=with_batch_norm(trained=True), buffers=True
    )
    network = observation.network
    known = known_statistics(network, observation.update)
    assert isinstance(network, nn.Sequential)
    with torch.no_grad():
        features = network[0](require(truth.encodings))
    mean, variance = known["1"]
    torch.testing.assert_close(mean, features.mean(dim=(0, 2, 3)).double(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(variance, features.var(dim=(0, 2, 3)).double(), atol=1e-4, rtol=1e-3)


def test_the_private_batch_is_nearest_to_its_own_statistics(seen: Seen) -> None:
    training = LocalTraining(images=4, batch_size=4, train_mode=True)
    observation, truth = seen(training=training, network=with_batch_norm(), buffers=True)
    network, update = observation.network, observation.update
    features = FeatureStatistics(Replay(network, update), known_statistics(network, update))
    own = require(truth.encodings).double()
    others = truth.images[10:14].double()
    near, far = (float(features.distance(images).detach()) for images in (own, others))
    assert near < 0.01 < far


def test_an_untrained_network_knows_nothing_until_statistics_are_sent(seen: Seen) -> None:
    for trained, buffers, steps, layers in [
        (False, False, 0, 0), (True, False, 0, 2), (False, True, 0, 2), (False, True, 2, 0),
    ]:  # fmt: skip
        observation, _ = seen(
            training=LocalTraining(images=2, batch_size=2, steps=steps, train_mode=True),
            network=with_batch_norm(trained=trained),
            buffers=buffers,
        )
        known = known_statistics(observation.network, observation.update)
        assert len(known) == layers

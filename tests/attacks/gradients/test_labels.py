"""Labels are read off the last layer's gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instahide.attacks.base import LocalTraining, UpdateObservation, require
from instahide.attacks.gradients.labels import last_bias, recovered_labels
from instahide.attacks.gradients.replay import Replay
from instahide.audit.ground_truth import GroundTruth
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.attacks.gradients.conftest import Seen, with_batch_norm


def read(observation: UpdateObservation, truth: GroundTruth) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    guess = torch.randn(require(truth.encodings).shape, generator=generator, dtype=torch.float64)
    replay = Replay(observation.network, observation.update)
    return recovered_labels(replay, guess, observation.scheme)


@pytest.mark.parametrize(
    "training", [LocalTraining(), LocalTraining(steps=3)], ids=["one", "three"]
)
def test_the_class_of_one_image_is_always_found(seen: Seen, training: LocalTraining) -> None:
    for first in range(20):
        observation, truth = seen(training=training, first=first)
        found = read(observation, truth)
        assert found[0].nonzero().flatten().tolist() == [int(truth.classes[first])]
        assert float(found.sum()) == pytest.approx(1)


@pytest.mark.parametrize("labels", ["soft", "renormalised"])
def test_a_soft_label_is_found_with_its_coefficients(seen: Seen, labels: str) -> None:
    """Outputs of an untrained network depend a little on the image.

    The worst coefficient is off by 0.04 on average, with a deviation of 0.03; the mean of 20 passes
    0.12 less than once in a million. A label of equal classes, or of one, is off by 0.3 and more.
    """
    worst = []
    for _ in range(20):
        scheme = Scheme.inside(4, label_mode=labels)
        observation, truth = seen(scheme, network=with_batch_norm(trained=True))
        off = read(observation, truth) - require(observation.labels)
        worst.append(float(off.abs().max()))
    assert sum(worst) / 20 < 0.12


def test_classes_of_a_batch_are_counted(seen: Seen, digits: ImageTable) -> None:
    observation, truth = seen(
        training=LocalTraining(images=8, batch_size=8), network=with_batch_norm(trained=True)
    )
    found = read(observation, truth).argmax(dim=1)
    right = torch.from_numpy(digits.labels[:8])
    shared = torch.minimum(found.bincount(minlength=10), right.bincount(minlength=10)).sum()
    # Of ten classes, 8 draws at random share 5 or 6 with another 8 once in a hundred.
    assert int(shared) >= 7


def test_the_last_bias_is_named_or_there_is_none() -> None:
    assert last_bias(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == "1.bias"
    assert last_bias(nn.Conv2d(1, 1, 1)) is None
    assert last_bias(nn.Linear(2, 2, bias=False)) is None

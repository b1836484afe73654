"""Small images, and what a participant sends of training on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from instahide.attacks.base import LocalTraining, UpdateObservation
from instahide.attacks.gradients.lenet import lenet
from instahide.audit.client_update import observe_update
from instahide.audit.ground_truth import GroundTruth
from instahide.data import ImageTable, open_split
from instahide.encryption.scheme import Scheme

#: An observation of an update, and the truth behind it.
Seen = Callable[..., tuple[UpdateObservation, GroundTruth]]


@pytest.fixture(scope="session")
def digits() -> ImageTable:
    return open_split("digits").train.subset(slice(0, 40))


@pytest.fixture(scope="session")
def seen(digits: ImageTable) -> Seen:
    """What a participant with `digits` sends; by default the gradient of one plain image."""

    def made(
        scheme: Scheme | None = None,
        training: LocalTraining | None = None,
        network: nn.Module | None = None,
        first: int = 0,
        **options: Any,
    ) -> tuple[UpdateObservation, GroundTruth]:
        training = LocalTraining() if training is None else training
        return observe_update(
            digits,
            None,
            Scheme.plain() if scheme is None else scheme,
            lenet((1, 8, 8), 10, seed=first) if network is None else network,
            np.arange(first, first + training.images),
            training,
            **options,
        )

    return made


def with_batch_norm(*, trained: bool = False) -> nn.Module:
    """A small network with batch norm, whose running statistics may be those of training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Tanh(),
            nn.Flatten(), nn.Linear(8 * 16, 10),
        )  # fmt: skip
    if trained:
        images = torch.from_numpy(open_split("digits").train.normalized(slice(100, 400)))
        for batch in images.split(30):
            network(batch)
    return network

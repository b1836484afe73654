"""The common setup of attacks on an update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instahide.attacks.base import (
    UpdateObservation,
)
from instahide.attacks.gradients.replay import Replay


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """An update, and what is known of the n images behind it.

    Attributes:
        replay: of the participant's training.
        shape: (n, C, H, W), or (n, C, D, H, W), of what it trained on.
        classes: outputs of the network.
        labels: (n, classes) float64 if the attacker has them.
        low: (1, C, 1, ...) least value that an encoding can have.
        high: (1, C, 1, ...) greatest value.
    """

    replay: Replay
    shape: tuple[int, ...]
    classes: int
    labels: Tensor | None
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, observation: UpdateObservation) -> Problem:
        """The problem that an observation, of which `inapplicable` says nothing, poses."""
        replay = Replay(observation.network, observation.update)
        shape = (observation.update.training.images, *observation.shape)
        labels = observation.labels if observation.threat.labels == "soft" else None
        places = (1,) * (len(shape) - 2)
        mean, std = (
            torch.tensor(moment, dtype=torch.float64, device=replay.device).reshape(1, -1, *places)
            for moment in (observation.mean, observation.std)
        )
        low, high = -mean / std, (1 - mean) / std
        if observation.scheme.mask:
            high = torch.maximum(-low, high)
            low = -high
        with torch.no_grad():
            classes = replay.logits(torch.zeros(shape).to(low)).shape[1]
        return cls(replay, shape, classes, None if labels is None else labels.to(low), low, high)

    def noise(self, generator: torch.Generator, shape: tuple[int, ...] | None = None) -> Tensor:
        """Standard normal values: of the shape of the images unless another is given."""
        drawn = torch.randn(shape or self.shape, generator=generator, dtype=torch.float64)
        return drawn.to(self.replay.device)


def inapplicable(observation: UpdateObservation) -> str | None:
    """Why no update can be inverted; None if one can."""
    network, update = observation.network, observation.update
    names = {name for name, _ in network.named_parameters()}
    if not update.values or not set(update.values) <= names:
        return "The update is not one of this network."
    if update.training.train_mode and any(map(_drops, network.modules())):
        return "The network drops values at random, which cannot be repeated."
    return None


def _drops(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0

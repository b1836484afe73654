"""The training loop of attacks on any encoder, and the losses of matching."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instahide.attacks.any_encoder.observation import PairObservation
from instahide.attacks.any_encoder.own_encodings import OwnBatch, own_batches
from instahide.attacks.any_encoder.towers import Matcher
from instahide.attacks.base import EncodingObservation, Progress, require
from instahide.attacks.budget import Budget
from instahide.attacks.training_clock import TrainingClock

#: Adam's highest learning rate.
RATE = 2e-3
#: Share of the budget for training; the rest is for the use of the network.
TRAINING_SHARE = 0.9


class Trained(NamedTuple):
    """Steps of a training, and the mean loss of the last ones."""

    steps: int
    loss: float

    def statistics(self) -> dict[str, float]:
        """Plain numbers."""
        return {"steps": float(self.steps), "loss": self.loss}


def train_on_own_encodings(
    network: nn.Module,
    loss_of: Callable[[OwnBatch], Tensor],
    observation: EncodingObservation | PairObservation,
    *,
    steps: int,
    copies: int,
    budget: Budget,
    progress: Progress,
) -> Trained:
    """Train ``network`` in place on the attacker's own encodings, and set it to evaluation mode.

    Args:
        network: the network.
        loss_of: its loss on a batch.
        observation: what the attacker sees.
        steps: largest number of training steps.
        copies: encodings of each image of a batch.
        budget: time of the attack.
        progress: is told each step.
    """
    optimiser = torch.optim.Adam(network.parameters())
    batches = own_batches(observation, copies)
    clock = TrainingClock(steps, budget.part(TRAINING_SHARE * budget.left))
    network.train()
    while not clock.over:
        for group in optimiser.param_groups:
            group["lr"] = RATE * clock.rate
        loss = loss_of(next(batches))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        clock.tick(loss.item())
        progress(f"step {clock.steps}, loss {clock.loss:.4f}", clock.done)
    network.eval()
    return Trained(clock.steps, clock.loss)


def trained_matcher(
    observation: EncodingObservation | PairObservation,
    shape: tuple[int, ...],
    *,
    steps: int,
    budget: Budget,
    progress: Progress,
) -> tuple[Matcher, Trained]:
    """A network that tells which image of ``shape`` (C, H, W) an encoding is of."""
    matcher = Matcher(shape, tuple(observation.encodings.shape[1:]))

    def loss_of(batch: OwnBatch) -> Tensor:
        return matching_loss(matcher(batch.encodings, batch.images), batch.shares)

    trained = train_on_own_encodings(
        matcher, loss_of, observation, steps=steps, copies=1, budget=budget, progress=progress
    )
    return matcher, trained


def trained_linker(
    observation: EncodingObservation, *, steps: int, budget: Budget, progress: Progress
) -> tuple[Matcher, Trained]:
    """A network that tells which encodings are of one image."""
    shape = require(observation.shadow).shape
    matcher = Matcher(shape, tuple(observation.encodings.shape[1:]))

    def loss_of(batch: OwnBatch) -> Tensor:
        same = (batch.encoded[:, None] == batch.encoded).float()
        itself = torch.eye(len(same), dtype=torch.bool)
        similarities = matcher.among(batch.encodings).masked_fill(itself, -torch.inf)
        return matching_loss(similarities, same.masked_fill(itself, 0))

    trained = train_on_own_encodings(
        matcher, loss_of, observation, steps=steps, copies=2, budget=budget, progress=progress
    )
    return matcher, trained


def matching_loss(similarities: Tensor, shares: Tensor) -> Tensor:
    """The cross-entropy of the softmax of each row against the ``shares`` of the columns.

    Args:
        similarities: (n, m); -infinity where the share is 0 by definition.
        shares: (n, m) not negative, a positive one in each row.
    """
    targets = shares / shares.sum(dim=1, keepdim=True)
    logarithms = similarities.log_softmax(dim=1).masked_fill(targets == 0, 0)
    return -(targets * logarithms).sum(dim=1).mean()

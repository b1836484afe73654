"""Gradient descent for as long as there is time, which is what an attacker trains by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from instahide.attacks.base import Budget, Progress

#: Steps that the mean loss is of.
RECENT = 50


class LearningRate(NamedTuple):
    """A learning rate that comes to ``highest`` in so many steps of ``warm_up``.

    It falls evenly with the time that is left, to a share of itself, ``floor``.
    """

    highest: float
    warm_up: int
    floor: float = 0.0

    def at(self, step: int, spent: float) -> float:
        """Of step ``step``, from 0, when the share ``spent`` of the time has passed."""
        warmth = min(1, (step + 1) / self.warm_up)
        return self.highest * warmth * (self.floor + (1 - self.floor) * (1 - spent))


def train_steps(
    optimiser: torch.optim.Optimizer,
    losses: Iterator[Tensor],
    budget: Budget,
    progress: Progress,
    rate: LearningRate,
) -> None:
    """Take a step for each of ``losses``, until ``budget`` ends; ``progress`` hears their mean."""
    mean_loss, first = 0.0, 0.0
    for step in count():
        left = budget.left
        if left == 0:
            break
        first = first or left
        spent = 0.0 if math.isinf(first) else 1 - left / first
        for group in optimiser.param_groups:
            group["lr"] = rate.at(step, spent)
        loss = next(losses)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        mean_loss += (loss.item() - mean_loss) / min(step + 1, RECENT)
        progress(f"step {step + 1}, loss {mean_loss:.4f}", spent)

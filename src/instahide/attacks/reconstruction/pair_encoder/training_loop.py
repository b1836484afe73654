"""A training loop with a time limit instead of a number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from instahide.attacks.base import Progress
from instahide.attacks.budget import Budget

#: Number of recent steps in the mean loss.
RECENT = 50


class LearningRate(NamedTuple):
    """A learning rate that rises linearly to ``highest`` in ``warm_up`` steps.

    It decays linearly with the remaining time, to ``floor`` times its highest value.
    """

    highest: float
    warm_up: int
    floor: float = 0.0

    def at(self, step: int, spent: float) -> float:
        """The learning rate of ``step``, from 0, after the fraction ``spent`` of the time."""
        warmth = min(1, (step + 1) / self.warm_up)
        return self.highest * warmth * (self.floor + (1 - self.floor) * (1 - spent))


def train_steps(
    optimiser: torch.optim.Optimizer,
    losses: Iterator[Tensor],
    budget: Budget,
    progress: Progress,
    rate: LearningRate,
) -> None:
    """Take a step for each of ``losses`` until ``budget`` ends; report the mean to ``progress``."""
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

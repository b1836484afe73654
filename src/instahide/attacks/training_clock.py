"""The progress of a network that an attack trains, and its learning rate."""

from __future__ import annotations

from math import inf

from instahide.attacks.budget import Budget

#: Share of the steps in which the learning rate increases.
WARM_UP = 0.05


class TrainingClock:
    """The progress of training, by steps or by the budget, whichever is further.

    Args:
        steps: largest number of steps.
        budget: time for the training.
    """

    def __init__(self, steps: int, budget: Budget) -> None:
        self.steps, self.loss = 0, 0.0
        self._most, self._budget = steps, budget

    def tick(self, loss: float) -> None:
        """Count a step; ``loss`` is averaged over about fifty steps."""
        self.steps += 1
        self.loss += (loss - self.loss) / min(self.steps, 50)

    @property
    def over(self) -> bool:
        """Whether there are no more steps, or no more time, which cuts the budget short."""
        return self.steps >= self._most or self._budget.over

    @property
    def done(self) -> float:
        """The finished share of the training."""
        spent = 1 - self._budget.left / self._budget.seconds if self._budget.seconds < inf else 0.0
        return min(1.0, max(self.steps / self._most, spent))

    @property
    def rate(self) -> float:
        """The learning rate relative to the highest: a linear warm-up, then a decay to 0."""
        return min((self.done + 1 / self._most) / WARM_UP, 1 - self.done)

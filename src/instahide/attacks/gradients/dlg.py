"""Deep Leakage from Gradients: image and label are sought together, by L-BFGS.

Zhu, Liu and Han (NeurIPS 2019, arXiv:1906.08935). The line search is ours: at the fixed step of the
original many starts go astray.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from instahide.attacks.base import (
    Budget,
    InvertedUpdate,
    Progress,
    UpdateObservation,
)
from instahide.attacks.gradients.problem import Problem, inapplicable
from instahide.attacks.gradients.replay import squared_distance

#: Share of the update's square that may be left of a solved one; and gain that a round must bring.
SOLVED, LEAST_GAIN = 1e-8, 0.999
#: Evaluations of a round, and past steps that make up the curvature.
EVALUATIONS, HISTORY = 20, 200


@dataclass(frozen=True)
class DeepLeakage:
    """Noise is changed until the network's answer to it is the update that was sent.

    Attributes:
        rounds: of `EVALUATIONS` each, of one start, at most.
        starts: at most; the nearest counts, and none follows one that solves the problem.
        seed: of the starts.
    """

    rounds: int = 300
    starts: int = 4
    seed: int = 0
    name: str = "dlg"
    title: str = "Images and labels from an update, by L-BFGS"
    paper: str = "Zhu, Liu, Han, Deep Leakage from Gradients, NeurIPS 2019 (arXiv:1906.08935)"
    observes: ClassVar[type[UpdateObservation]] = UpdateObservation

    def applies(self, observation: UpdateObservation) -> str | None:
        """It needs an update, and the network before it."""
        return inapplicable(observation)

    def run(
        self, observation: UpdateObservation, budget: Budget, progress: Progress
    ) -> InvertedUpdate:
        """The images of the nearest start; their labels too, if the attacker had none."""
        problem = Problem.of(observation)
        generator = torch.Generator().manual_seed(self.seed)
        done: list[_Start] = []
        for number in range(self.starts):
            start = _Start(problem, generator)
            start.descend(self.rounds, budget, _part(progress, number, self.starts))
            done.append(start)
            if start.distance <= SOLVED or budget.left == 0:
                break
        progress("starts", 1.0)
        best = min(done, key=lambda start: start.distance)
        return InvertedUpdate(
            best.images.detach().float().cpu(),
            best.labels().detach().float().cpu() if problem.labels is None else None,
            statistics={"distance": best.distance, "starts": float(len(done))},
        )


def _part(progress: Progress, number: int, starts: int) -> Callable[[float], None]:
    """Tells ``progress`` how much of all starts is done, from how much is of one."""
    return lambda share: progress("starts", (number + share) / starts)


class _Start:
    """One descent from noise."""

    def __init__(self, problem: Problem, generator: torch.Generator) -> None:
        self.problem, self.distance = problem, math.inf
        self.images = problem.noise(generator).requires_grad_()
        self.logits = problem.noise(generator, (problem.shape[0], problem.classes)).requires_grad_()

    def labels(self) -> Tensor:
        """(n, classes) known ones, or else the present guess."""
        known = self.problem.labels
        return self.logits.softmax(dim=1) if known is None else known

    def descend(self, rounds: int, budget: Budget, say: Callable[[float], None]) -> None:
        """Change the guess until it is right, gets no better or the budget ends."""
        optimizer = torch.optim.LBFGS(
            self._variables(),
            max_iter=EVALUATIONS,
            history_size=HISTORY,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        before = float("inf")
        for number in range(rounds):
            say(number / rounds)
            # What a round hands back is the distance that it began with.
            now = float(optimizer.step(self._measured))  # type: ignore[no-untyped-call]
            if not SOLVED < now < LEAST_GAIN * before or budget.left == 0:
                break
            before = now
        last = float(self._measured())
        self.distance = last if math.isfinite(last) else math.inf

    def _variables(self) -> list[Tensor]:
        return [self.images] if self.problem.labels is not None else [self.images, self.logits]

    def _measured(self) -> Tensor:
        """The distance of this guess, with its slopes where the optimiser looks for them."""
        replay = self.problem.replay
        distance = squared_distance(replay.update(self.images, self.labels()), replay.sent)
        variables = self._variables()
        slopes = torch.autograd.grad(distance, variables)
        for variable, slope in zip(variables, slopes, strict=True):
            variable.grad = slope
        return distance.detach()

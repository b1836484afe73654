"""Deep Leakage from Gradients: optimize images and labels together by L-BFGS.

Zhu, Liu and Han (NeurIPS 2019, arXiv:1906.08935). The line search is an addition: with the fixed
step of the original, many starts diverge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from instahide.attacks.base import InvertedUpdate, Progress, UpdateObservation
from instahide.attacks.budget import Budget
from instahide.attacks.gradients.problem import Problem, inapplicable
from instahide.attacks.gradients.replay import squared_distance

#: A problem is solved at this squared distance, relative to that of the update. A start ends if a
#: round does not reduce the distance to this fraction.
SOLVED, LEAST_GAIN = 1e-8, 0.999
#: Iterations per round, and number of past steps that L-BFGS uses to estimate the curvature.
EVALUATIONS, HISTORY = 20, 200


@dataclass(frozen=True)
class DeepLeakage:
    """Optimizes random images until their gradient equals the observed update.

    Attributes:
        rounds: maximum number of rounds per start, of `EVALUATIONS` iterations each.
        starts: maximum number of starts. The one with the smallest distance is returned; a start
            that solves the problem is the last.
        seed: seed of the random starts.
    """

    rounds: int = 300
    starts: int = 4
    seed: int = 0
    name: str = "dlg"
    title: str = "Images and labels from an update, by L-BFGS"
    paper: str = "Zhu, Liu, Han, Deep Leakage from Gradients, NeurIPS 2019 (arXiv:1906.08935)"
    observes: ClassVar[type[UpdateObservation]] = UpdateObservation
    volumes: ClassVar[bool] = True

    def applies(self, observation: UpdateObservation) -> str | None:
        """Applies if the update and the network before it are known."""
        return inapplicable(observation)

    def run(
        self, observation: UpdateObservation, budget: Budget, progress: Progress
    ) -> InvertedUpdate:
        """The images of the best start, with their labels if the attacker had none."""
        problem = Problem.of(observation)
        generator = torch.Generator().manual_seed(self.seed)
        done: list[_Start] = []
        for number in range(self.starts):
            start = _Start(problem, generator)
            start.descend(self.rounds, budget, _part(progress, number, self.starts))
            done.append(start)
            if start.distance <= SOLVED or (number + 1 < self.starts and budget.over):
                break
        progress("starts", 1.0)
        best = min(done, key=lambda start: start.distance)
        return InvertedUpdate(
            best.images.detach().float().cpu(),
            best.labels().detach().float().cpu() if problem.labels is None else None,
            statistics={"distance": best.distance, "starts": float(len(done))},
        )


def _part(progress: Progress, number: int, starts: int) -> Callable[[float], None]:
    """A callback that converts the progress of one start to that of all starts."""
    return lambda share: progress("starts", (number + share) / starts)


class _Start:
    """One optimization from random images."""

    def __init__(self, problem: Problem, generator: torch.Generator) -> None:
        self.problem, self.distance = problem, math.inf
        self.images = problem.noise(generator).requires_grad_()
        self.logits = problem.noise(generator, (problem.shape[0], problem.classes)).requires_grad_()

    def labels(self) -> Tensor:
        """(n, classes) the known labels, or else the current estimate."""
        known = self.problem.labels
        return self.logits.softmax(dim=1) if known is None else known

    def descend(self, rounds: int, budget: Budget, say: Callable[[float], None]) -> None:
        """Optimize until the problem is solved, progress stops or the budget ends."""
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
            # `step` returns the distance at the beginning of the round.
            now = float(optimizer.step(self._measured))  # type: ignore[no-untyped-call]
            if not SOLVED < now < LEAST_GAIN * before:
                break
            if number + 1 < rounds and budget.over:
                break
            before = now
        last = float(self._measured())
        self.distance = last if math.isfinite(last) else math.inf

    def _variables(self) -> list[Tensor]:
        return [self.images] if self.problem.labels is not None else [self.images, self.logits]

    def _measured(self) -> Tensor:
        """The distance of the current estimate; its gradients are stored in `grad`."""
        replay = self.problem.replay
        distance = squared_distance(replay.update(self.images, self.labels()), replay.sent)
        variables = self._variables()
        slopes = torch.autograd.grad(distance, variables)
        for variable, slope in zip(variables, slopes, strict=True):
            variable.grad = slope
        return distance.detach()

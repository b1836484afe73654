"""Inverting Gradients: cosine distance to an update, total variation, and signed steps by Adam.

Geiping, Bauermeister, Dröge and Moeller (NeurIPS 2020, arXiv:2003.14053): cosine distance, total
variation, the sign of the gradient instead of the gradient, a step size that is reduced three
times, images clipped to their range, and several starts. Unknown labels are first recovered from
the gradient of the last layer.

Encodings of InstaHide are not smooth: their signs are random, but |x| is smooth. The attacker knows
the scheme, and uses the total variation of |x| if encodings are masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from instahide.attacks.base import InvertedUpdate, Progress, UpdateObservation
from instahide.attacks.budget import Budget
from instahide.attacks.gradients.labels import last_bias, recovered_labels
from instahide.attacks.gradients.priors import (
    FeatureStatistics,
    Moments,
    known_statistics,
    total_variation,
)
from instahide.attacks.gradients.problem import Problem, inapplicable
from instahide.attacks.gradients.replay import cosine_distance

#: Fractions of the iterations after which the step size is reduced, and the factor (Geiping et al.,
#: appendix).
MILESTONES, DECAY = (3 / 8, 5 / 8, 7 / 8), 0.1
#: Iterations between progress reports.
REPORT_EVERY = 50


@dataclass(frozen=True)
class InvertingGradients:
    """Finds images whose gradient has the same direction as the observed update.

    Attributes:
        iterations: number of iterations per start.
        starts: number of starts; the one with the smallest distance is returned.
        step: initial step size of Adam, in units of the normalized images.
        smoothness: weight of the total variation, relative to the cosine distance.
        statistics: weight of the batch norm statistics, relative to the cosine distance.
        seed: seed of the random starts.
    """

    iterations: int = 2400
    starts: int = 2
    step: float = 0.1
    smoothness: float = 1e-2
    statistics: float = 0.0
    seed: int = 0
    name: str = "inverting-gradients"
    title: str = "Images from the direction of an update, smooth ones first"
    paper: str = "Geiping et al., Inverting Gradients, NeurIPS 2020 (arXiv:2003.14053)"
    observes: ClassVar[type[UpdateObservation]] = UpdateObservation
    volumes: ClassVar[bool] = True

    def applies(self, observation: UpdateObservation) -> str | None:
        """Applies if the update, the network before it, and labels or the last bias are known."""
        reason = inapplicable(observation)
        if reason is None and self.statistics and not _statistics(observation):
            return "The network has no informative batch norm statistics."
        return reason or _unreadable(observation)

    def run(
        self, observation: UpdateObservation, budget: Budget, progress: Progress
    ) -> InvertedUpdate:
        """The images of the best start, with their labels if the attacker had none."""
        search = _Search(self, observation, budget, progress)
        search.descend()
        while search.begun < self.starts and not budget.over:
            search.descend()
        progress("starts", 1.0)
        return InvertedUpdate(
            search.images.float().cpu(),
            search.read_labels(),
            statistics={"distance": search.distance, "starts": float(search.begun)},
        )


@dataclass(frozen=True)
class InvertingStatistics(InvertingGradients):
    """`InvertingGradients` with the mean and variance of batch norm layers as a prior."""

    statistics: float = 1e-2
    name: str = "inverting-statistics"
    title: str = "Images from the direction of an update, with batch norm statistics as a prior"
    paper: str = "Yin et al., GradInversion, CVPR 2021 (arXiv:2104.07586)"


class _Search:
    """One run: the problem, and the best estimate so far."""

    def __init__(
        self,
        attack: InvertingGradients,
        observation: UpdateObservation,
        budget: Budget,
        progress: Progress,
    ) -> None:
        self.attack, self.budget, self.progress = attack, budget, progress
        self.problem, self.masked = Problem.of(observation), observation.scheme.mask
        self.generator = torch.Generator().manual_seed(attack.seed)
        replay, known = self.problem.replay, self.problem.labels
        self.features = (
            FeatureStatistics(replay, _statistics(observation)) if attack.statistics else None
        )
        self.labels = (
            recovered_labels(replay, self.problem.noise(self.generator), observation.scheme)
            if known is None
            else known
        )
        self.begun, self.distance, self.images = 0, math.inf, torch.zeros(self.problem.shape)

    def read_labels(self) -> Tensor | None:
        """(n, classes) recovered labels; None if the attacker knew them."""
        return self.labels.float().cpu() if self.problem.labels is None else None

    def descend(self) -> None:
        """Run one start; keep its images if their distance is the smallest so far."""
        images = self.problem.noise(self.generator).requires_grad_()
        optimizer = torch.optim.Adam([images], lr=self.attack.step)
        falls = [int(share * self.attack.iterations) for share in MILESTONES]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, gamma=DECAY)
        for iteration in range(self.attack.iterations):
            (slope,) = torch.autograd.grad(self._objective(images), images)
            images.grad = slope.sign()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                images.clamp_(self.problem.low, self.problem.high)
            if iteration + 1 < self.attack.iterations and self.budget.over:
                break
            if iteration % REPORT_EVERY == 0:
                share = (self.begun + iteration / self.attack.iterations) / self.attack.starts
                self.progress("starts", share)
        self.begun += 1
        distance = float(self._distance(images).detach())
        if self.begun == 1 or distance < self.distance:
            self.distance, self.images = distance, images.detach()

    def _distance(self, images: Tensor) -> Tensor:
        replay = self.problem.replay
        return cosine_distance(replay.update(images, self.labels), replay.sent)

    def _objective(self, images: Tensor) -> Tensor:
        smooth = total_variation(images.abs() if self.masked else images)
        total = self._distance(images) + self.attack.smoothness * smooth
        if self.features is not None:
            total = total + self.attack.statistics * self.features.distance(images)
        return total


def _statistics(observation: UpdateObservation) -> dict[str, Moments]:
    return known_statistics(observation.network, observation.update)


def _unreadable(observation: UpdateObservation) -> str | None:
    """Why unknown labels cannot be recovered from the update; None if they can or are known."""
    if observation.labels is not None and observation.threat.labels == "soft":
        return None
    if last_bias(observation.network) in observation.update.values:
        return None
    return (
        "The labels are unknown, and the update has no bias of a last layer to recover them from."
    )

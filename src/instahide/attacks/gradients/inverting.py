"""Inverting Gradients: the direction of an update, smooth images, and signed steps by Adam.

Geiping, Bauermeister, Dröge and Moeller (NeurIPS 2020, arXiv:2003.14053): cosine distance, total
variation, the sign of the slope instead of the slope, a step that falls three times, images kept in
their range, several starts. Labels that are not known are read off the last layer first.

Encodings of InstaHide are not smooth: their signs are noise, but |x| is smooth. The attacker knows
the scheme, and uses the total variation of |x| for masked ones.
"""

from __future__ import annotations

import math
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
from instahide.attacks.gradients.labels import last_bias, recovered_labels
from instahide.attacks.gradients.priors import (
    FeatureStatistics,
    Moments,
    known_statistics,
    total_variation,
)
from instahide.attacks.gradients.problem import Problem, inapplicable
from instahide.attacks.gradients.replay import cosine_distance

#: Shares of the iterations after which the step falls, and by what (Geiping et al., appendix).
MILESTONES, DECAY = (3 / 8, 5 / 8, 7 / 8), 0.1
#: Iterations from one word on progress to the next.
SAY_EVERY = 50


@dataclass(frozen=True)
class InvertingGradients:
    """Images whose update points the same way as the one that was sent.

    Attributes:
        iterations: of one start.
        starts: the one that comes nearest counts.
        step: of Adam at first, in units of the normalized images.
        smoothness: what total variation counts beside the cosine distance.
        statistics: what batch norm statistics count beside it.
        seed: of the starts.
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

    def applies(self, observation: UpdateObservation) -> str | None:
        """It needs an update, the network before it, and labels or a layer to read them from."""
        reason = inapplicable(observation)
        if reason is None and self.statistics and not _statistics(observation):
            return "The network has no batch norm statistics that say anything."
        return reason or _unreadable(observation)

    def run(
        self, observation: UpdateObservation, budget: Budget, progress: Progress
    ) -> InvertedUpdate:
        """The images of the nearest start; their labels too, if the attacker had none."""
        search = _Search(self, observation, budget, progress)
        search.descend()
        while search.begun < self.starts and budget.left > 0:
            search.descend()
        progress("starts", 1.0)
        return InvertedUpdate(
            search.images.float().cpu(),
            search.read_labels(),
            statistics={"distance": search.distance, "starts": float(search.begun)},
        )


@dataclass(frozen=True)
class InvertingStatistics(InvertingGradients):
    """The same, for images whose features have the mean and variance that batch norm knows."""

    statistics: float = 1e-2
    name: str = "inverting-statistics"
    title: str = "Images from the direction of an update, with batch norm statistics as a prior"
    paper: str = "Yin et al., GradInversion, CVPR 2021 (arXiv:2104.07586)"


class _Search:
    """One run: the problem, and the best guess so far."""

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
        """(n, classes) labels, if they were not known."""
        return self.labels.float().cpu() if self.problem.labels is None else None

    def descend(self) -> None:
        """One start; its images are kept if they come nearer than all before."""
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
            if self.budget.left == 0:
                break
            if iteration % SAY_EVERY == 0:
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
    """Why labels that the attacker lacks cannot be read off the update."""
    if observation.labels is not None and observation.threat.labels == "soft":
        return None
    if last_bias(observation.network) in observation.update.values:
        return None
    return "There are no labels, and no last layer with a bias to read them from."

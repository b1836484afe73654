"""Membership inference: was the network trained on this image?

A network has a lower loss on its training images. `LossThreshold` uses the loss alone (Yeom,
Giacomelli, Fredrikson and Jha, CSF 2018). But some images are easy or hard for every network.
Therefore `LikelihoodRatio` (Carlini et al., "Membership Inference Attacks From First Principles",
IEEE S&P 2022) trains shadow networks, half of them on each image, and tests which half the victim's
network is more similar to. The scheme is public, so shadow networks are trained on encodings like
the victim's, under the attacker's own keys.

Candidates are not encrypted for the networks: the attacker has them, and networks trained on
encodings also classify plain images.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from instahide.attacks.base import Finding, MembershipScores, NetworkObservation, Progress
from instahide.attacks.budget import Budget
from instahide.attacks.shadow_models import Recipe, Train, train_shadow_model
from instahide.data import ImageTable
from instahide.utils.evaluation_mode import evaluation_mode

#: Number of images per forward pass.
BATCH = 500


@dataclass(frozen=True)
class LossThreshold:
    """Membership by a threshold of the loss: a smaller loss indicates a member."""

    name: str = "membership-loss"
    title: str = "Membership by the network's loss"
    paper: str = "Yeom et al., Privacy Risk in Machine Learning, CSF 2018 (arXiv:1709.01604)"
    observes: ClassVar[type[NetworkObservation]] = NetworkObservation
    volumes: ClassVar[bool] = True

    def applies(self, observation: NetworkObservation) -> str | None:
        """Always applies."""
        return None

    def run(self, observation: NetworkObservation, budget: Budget, progress: Progress) -> Finding:
        """The negative loss of every candidate."""
        candidates = observation.candidates
        found = confidences(observation.network, candidates)
        progress("loss", 1.0)
        # p = 1 / (1 + e^-confidence), of which the loss is -log p.
        losses = torch.nn.functional.softplus(-found)
        statistics = {"candidates": float(len(candidates)), "mean_loss": float(losses.mean())}
        return MembershipScores(-losses, statistics=statistics)


@dataclass(frozen=True)
class LikelihoodRatio:
    """Membership by the likelihood ratio of the confidence under shadow networks.

    Attributes:
        networks: number of shadow networks, even; fewer if the budget ends before.
        train: trains one as the victim did; by default `train_shadow_model` with ``recipe``.
        recipe: settings of that default.
        seed: seed of the choice of training candidates for each shadow network.
    """

    networks: int = 16
    train: Train | None = None
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    name: str = "membership"
    title: str = "Membership by the likelihood ratio of shadow networks"
    paper: str = "Carlini et al., Membership Inference Attacks From First Principles, S&P 2022"
    observes: ClassVar[type[NetworkObservation]] = NetworkObservation
    volumes: ClassVar[bool] = True

    def applies(self, observation: NetworkObservation) -> str | None:
        """Applies if there are enough candidates, half of which train each shadow network."""
        least = 2 * max(2, observation.scheme.private_k)
        if len(observation.candidates) < least:
            return f"There are fewer than {least} images to train shadow networks on."
        if observation.scheme.public_k and observation.public is None:
            return "The attacker has no public images to train shadow networks with."
        return None

    def run(self, observation: NetworkObservation, budget: Budget, progress: Progress) -> Finding:
        """The log likelihood ratio of every candidate.

        There are no scores if the budget ends before two shadow networks are trained.
        """
        began = time.monotonic()
        candidates = observation.candidates
        shadows, members = self._shadows(observation, candidates, budget, progress)
        statistics = {"networks": float(len(members)), "seconds": time.monotonic() - began}
        if not len(members):
            return Finding(statistics=statistics)
        victim = confidences(observation.network, candidates)
        ratios, gap = likelihood_ratios(victim, shadows, members)
        return MembershipScores(ratios, statistics={**statistics, "gap": gap})

    def _shadows(
        self,
        observation: NetworkObservation,
        candidates: ImageTable,
        budget: Budget,
        progress: Progress,
    ) -> tuple[Tensor, Tensor]:
        """(s, m) confidences of shadow networks, and the candidates that each was trained on."""
        train = self.train or self._trainer(observation, budget)
        shadows, members = [torch.empty(0, len(candidates))], [torch.empty(0, len(candidates))]
        generator = np.random.default_rng(self.seed)
        for number in range(self.networks // 2):
            half = generator.permutation(len(candidates)) < len(candidates) // 2
            pair = []
            # In pairs with complementary halves, so that each candidate is used by half of the
            # networks.
            for place, chosen in enumerate((half, ~half)):
                progress(
                    f"shadow network {2 * number + place + 1}", (2 * number + place) / self.networks
                )
                model = train(candidates.subset(np.flatnonzero(chosen)))
                pair.append(confidences(model, candidates))
            if budget.over:
                break
            shadows.append(torch.stack(pair))
            members.append(torch.from_numpy(np.stack([half, ~half])).float())
        return torch.cat(shadows), torch.cat(members).bool()

    def _trainer(self, observation: NetworkObservation, budget: Budget) -> Train:
        network, public = observation.network, observation.public
        return lambda images: train_shadow_model(
            network, images, public, observation.scheme, self.recipe, budget
        )


@torch.inference_mode()
def confidences(network: nn.Module, candidates: ImageTable) -> Tensor:
    """(m,) log p / (1 - p) of the right class, which is nearly normal (Carlini et al., 2022).

    Args:
        network: returns logits; used in evaluation mode, and left in the mode of before.
        candidates: images, normalized like its training images.
    """
    device = next(network.parameters()).device
    found = []
    with evaluation_mode(network):
        for start in range(0, len(candidates), BATCH):
            rows = slice(start, start + BATCH)
            logits = network(torch.from_numpy(candidates.normalized(rows)).to(device)).double()
            right = torch.from_numpy(candidates.labels[rows]).to(device)[:, None]
            others = logits.scatter(1, right, -torch.inf).logsumexp(dim=1)
            found.append((logits.gather(1, right)[:, 0] - others).float().cpu())
    return torch.cat(found)


def likelihood_ratios(victim: Tensor, shadows: Tensor, members: Tensor) -> tuple[Tensor, float]:
    """Log likelihood ratios of the confidences: trained on the image against not trained on it.

    Both distributions are normal with a mean for each image. There are two standard deviations, one
    for members and one for others over all images, because there are few networks (Carlini et al.,
    2022).

    Args:
        victim: (m,) confidences of the victim's network.
        shadows: (s, m) confidences of the shadow networks.
        members: (s, m) bool, the training images of each shadow network.

    Returns:
        Log likelihood ratios (m,), and the difference of both means in standard deviations, which
        measures how much shadow networks leak.
    """
    (within, spread), (without, other) = (
        _mean_and_deviation(shadows, which.float()) for which in (members, ~members)
    )
    ratios = _log_density(victim, within, spread) - _log_density(victim, without, other)
    return ratios, float((within - without).mean() / other)


def _mean_and_deviation(shadows: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Means (m,) over the networks selected by ``which`` (s, m), and the common deviation."""
    mean = (shadows * which).sum(dim=0) / which.sum(dim=0)
    squares = ((shadows - mean).square() * which).sum()
    # Every mean uses one degree of freedom.
    return mean, (squares / (which.sum() - len(mean)).clamp(min=1)).sqrt().clamp(min=1e-6)


def _log_density(values: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """The log density of a normal distribution, up to a constant."""
    return -((values - mean) / spread).square() / 2 - spread.log()

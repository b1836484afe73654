"""The fusion-denoising attack of Luo et al., as a baseline.

Luo et al., "A Fusion-Denoising Attack on InstaHide with Data Augmentation" (AAAI 2022,
arXiv:2105.07754): a network fuses several encodings of one private image and denoises the result.
It is trained on encodings of the attacker's own images. This implementation is of a size for CPUs:
the same convolutions process the absolute values of every encoding, their weighted mean represents
what the encodings have in common, and a U-Net computes an image from it.

The published network is deeper, fuses fewer encodings, and was trained on a GPU. It finds the
encodings of an image by a comparison of pairs that is robust to augmentation. Here they come from
the assignment of `ReconstructionAttack`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.base import (
    AssignedImages,
    EncodingObservation,
    Progress,
    no_progress,
    require,
)
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import ReconstructionAttack
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.recovery.coefficients import weights
from instahide.attacks.shadow_encodings import ShadowBatch, missing_shadow, shadow_batches
from instahide.attacks.unet import UNet
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

#: Number of encodings fused per image: those with its largest coefficients.
FUSED = 16
#: Number of channels that are fused.
WIDTH = 16
#: Steps of Adam, highest learning rate, and shadow images per step.
STEPS, RATE, BATCH = 700, 3e-3, 16
#: Minimum number of encodings of an image.
LEAST_COPIES = 3


@dataclass(frozen=True)
class FusionDenoising:
    """Fuses and denoises the encodings that `ReconstructionAttack` assigns to each image.

    Attributes:
        steps: training steps of the denoiser; fewer if the budget ends before.
    """

    steps: int = STEPS
    name: str = "fusion-denoising"
    title: str = "Fusion and denoising, on the assignment of our reconstruction"
    paper: str = (
        "Luo et al., A Fusion-Denoising Attack on InstaHide with Data Augmentation, AAAI 2022 "
        "(arXiv:2105.07754)"
    )
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies to several masked encodings per image, given shadow images to train on."""
        copies = observation.threat.encodings_per_image
        if copies is None or copies < LEAST_COPIES:
            return f"Each image must be known to have at least {LEAST_COPIES} encodings."
        if not observation.scheme.mask:
            return "The attack is for masked encodings."
        return missing_shadow(observation)

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> AssignedImages:
        """Recover one image per cluster; half of the time is for the assignment."""
        half = budget.part(budget.left / 2)
        found = ReconstructionAttack().run(
            observation, half, lambda what, share: progress(what, share / 2)
        )
        network = learnt_denoiser(
            require(observation.shadow),
            observation.scheme,
            require(observation.threat.encodings_per_image),
            self.steps,
            lambda what, share: progress(what, (1 + share) / 2),
            budget,
        )
        return recover_by_fusion(observation, found, network)


class FusionDenoiser(nn.Module):
    """A network that recovers an image from several of its encodings.

    Args:
        channels: number of channels of the images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.denoiser = UNet(WIDTH)
        self.out = nn.Conv2d(WIDTH, channels, 1)

    def forward(self, sizes: Tensor, shares: Tensor) -> Tensor:
        """(m, C, H, W) recovered images.

        Args:
            sizes: (m, t, C, H, W) absolute values of the encodings of each image.
            shares: (m, t) weights of the encodings, 0 for encodings without the image.
        """
        features = self.features(sizes.flatten(0, 1)).unflatten(0, sizes.shape[:2])
        parts = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-9)
        image: Tensor = self.out(self.denoiser(torch.einsum("mt,mtchw->mchw", parts, features)))
        return image


def learnt_denoiser(
    shadow: ImageTable,
    scheme: Scheme,
    copies: int,
    steps: int = STEPS,
    progress: Progress = no_progress,
    budget: Budget | None = None,
) -> FusionDenoiser:
    """Train a denoiser on encodings of the attacker's own images.

    Args:
        shadow: the attacker's own images.
        scheme: scheme of the attacked encodings.
        copies: number of encodings of each private image.
        steps: training steps.
        progress: receives the mean loss.
        budget: time limit of the training; if it is too short, the schedule has fewer steps.
    """
    network, mean_loss = FusionDenoiser(shadow.shape[0]), 0.0
    budget = budget or Budget()
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    batches = shadow_batches(shadow, scheme, images=BATCH, encodings=BATCH * copies)
    if not math.isinf(budget.seconds):
        before = budget.left
        _loss(network, next(batches)).backward()  # type: ignore[no-untyped-call]
        pace = max(before - budget.left, 1e-9)
        possible = max(1, int(budget.left / pace))
        if possible < steps:
            steps = possible
            budget.cut()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for step in range(steps):
        if budget.over:
            break
        loss = _loss(network, next(batches))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 50)
        progress(f"step {step + 1}, loss {mean_loss:.4f}", (step + 1) / steps)
    return network.eval()


def grouped(sizes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(m, t, C, H, W) encodings with the largest coefficients of each image; these (m, t).

    Args:
        sizes: (n, C, H, W) absolute values of all encodings.
        weights: (n, m) coefficient of each image in each encoding, 0 if it is not in it.
    """
    most = weights.topk(min(FUSED, len(weights)), dim=0)
    return sizes[most.indices.T], most.values.T


@torch.inference_mode()
def recover_by_fusion(
    observation: EncodingObservation, found: AssignedImages, network: FusionDenoiser
) -> AssignedImages:
    """Recover the images of ``found`` again by fusion, with the same assignment and coefficients.

    Args:
        observation: the encodings.
        found: images with their assignment and coefficients.
        network: denoiser of `learnt_denoiser`.
    """
    members, coefficients = found.assignment, found.coefficients
    held = weights(members, coefficients, len(found.images))
    sizes = magnitudes(observation.encodings)
    parts = [network(*grouped(sizes, part)) for part in torch.split(held, BATCH, dim=1)]
    return replace(found, statistics={}, images=torch.cat(parts), confidence=None)


def _loss(network: FusionDenoiser, batch: ShadowBatch) -> Tensor:
    """Mean absolute difference from the images, with the better sign of each."""
    recovered = network(*grouped(magnitudes(batch.encodings), batch.coefficients))
    return F.l1_loss(_align_signs(recovered, batch.images), batch.images)


def _align_signs(recovered: Tensor, targets: Tensor) -> Tensor:
    """``recovered`` with signs such that each correlates positively with its target.

    The absolute values of encodings do not determine the signs of images.
    """
    products = (recovered * targets).sum(dim=(1, 2, 3), keepdim=True)
    return torch.where(products < 0, -recovered, recovered)

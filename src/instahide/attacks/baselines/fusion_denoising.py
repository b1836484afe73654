"""The fusion-denoising attack of Luo et al., to compare with ours.

Luo et al., "A Fusion-Denoising Attack on InstaHide with Data Augmentation" (AAAI 2022,
arXiv:2105.07754): several encodings of one private image are fused and denoised by a network that
has learnt it from encodings of the attacker's own images. So it is here, at a size for a processor:
the same convolutions go over the absolute values of every encoding, their mean is what the
encodings have in common, and a U-Net makes an image of it.

Theirs is deeper, fuses fewer encodings, finds them by a comparison of pairs that withstands
augmentation, and was trained on a GPU. Here they are those that our assignment gives.
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
    Budget,
    EncodingObservation,
    Progress,
    no_progress,
    require,
)
from instahide.attacks.reconstruction.attack import ReconstructionAttack
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.recovery.coefficients import weights
from instahide.attacks.shadow_encodings import ShadowBatch, missing_shadow, shadow_batches
from instahide.attacks.unet import UNet
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

#: Encodings of an image that are fused: those with most of it.
FUSED = 16
#: Channels of what is fused.
WIDTH = 16
#: Steps of Adam, the highest rate, and shadow images in a step.
STEPS, RATE, BATCH = 700, 3e-3, 16
#: Fewer encodings of an image have nothing to fuse.
LEAST_COPIES = 3


@dataclass(frozen=True)
class FusionDenoising:
    """Fuses the encodings that our assignment gives to each image, and denoises what they share.

    Attributes:
        steps: of training the denoiser; fewer if the budget would end before.
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
        """It needs several encodings of an image under a mask, and images to learn from."""
        copies = observation.threat.encodings_per_image
        if copies is None or copies < LEAST_COPIES:
            return f"It is not known that there are {LEAST_COPIES} encodings of an image or more."
        if not observation.scheme.mask:
            return "The attack is for masked encodings."
        return missing_shadow(observation)

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> AssignedImages:
        """One image a group; half of the time is for the assignment, the rest for training."""
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
    """From several encodings to the image that they share.

    Args:
        channels: of the images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seen = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.denoised = UNet(WIDTH)
        self.out = nn.Conv2d(WIDTH, channels, 1)

    def forward(self, sizes: Tensor, shares: Tensor) -> Tensor:
        """(m, C, H, W) images.

        Args:
            sizes: (m, t, C, H, W) absolute values of encodings of each.
            shares: (m, t) how much each encoding counts, 0 for one that does not hold the image.
        """
        features = self.seen(sizes.flatten(0, 1)).unflatten(0, sizes.shape[:2])
        parts = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-9)
        image: Tensor = self.out(self.denoised(torch.einsum("mt,mtchw->mchw", parts, features)))
        return image


def learnt_denoiser(
    shadow: ImageTable,
    scheme: Scheme,
    copies: int,
    steps: int = STEPS,
    progress: Progress = no_progress,
    budget: Budget | None = None,
) -> FusionDenoiser:
    """A network that has seen what encodings of the attacker's own images have in common.

    Args:
        shadow: those images.
        scheme: that the attacked encodings were made with.
        copies: encodings of each private image.
        steps: of training.
        progress: told the mean loss.
        budget: of the training; with too little time for all steps, the schedule has fewer.
    """
    network, mean_loss = FusionDenoiser(shadow.shape[0]), 0.0
    budget = budget or Budget()
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    batches = shadow_batches(shadow, scheme, images=BATCH, encodings=BATCH * copies)
    if not math.isinf(budget.seconds):
        before = budget.left
        _loss(network, next(batches)).backward()  # type: ignore[no-untyped-call]
        pace = max(before - budget.left, 1e-9)
        steps = max(1, min(steps, int(budget.left / pace)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for step in range(steps):
        if budget.left == 0:
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
    """(m, t, C, H, W) the encodings with most of each image, and (m, t) their coefficients.

    Args:
        sizes: (n, C, H, W) absolute values of all encodings.
        weights: (n, m) coefficient of each image in each encoding, 0 where it is not.
    """
    most = weights.topk(min(FUSED, len(weights)), dim=0)
    return sizes[most.indices.T], most.values.T


@torch.inference_mode()
def recover_by_fusion(
    observation: EncodingObservation, found: AssignedImages, network: FusionDenoiser
) -> AssignedImages:
    """The images of ``found`` recovered anew, by fusion, on the same assignment and coefficients.

    Args:
        observation: the encodings.
        found: images with their members and coefficients.
        network: see `learnt_denoiser`.
    """
    members, coefficients = found.assignment, found.coefficients
    held = weights(members, coefficients, len(found.images))
    sizes = magnitudes(observation.encodings)
    parts = [network(*grouped(sizes, part)) for part in torch.split(held, BATCH, dim=1)]
    return replace(found, statistics={}, images=torch.cat(parts), confidence=None)


def _loss(network: FusionDenoiser, batch: ShadowBatch) -> Tensor:
    """Mean absolute difference from the images, under the better sign of each."""
    shown = network(*grouped(magnitudes(batch.encodings), batch.coefficients))
    return F.l1_loss(_turned(shown, batch.images), batch.images)


def _turned(shown: Tensor, wanted: Tensor) -> Tensor:
    """``shown`` with the sign under which each is more like ``wanted``: |x| tells none."""
    likeness = (shown * wanted).sum(dim=(1, 2, 3), keepdim=True)
    return torch.where(likeness < 0, -shown, shown)

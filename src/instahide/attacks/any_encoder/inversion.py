"""Learned inversion: a network, trained on the attacker's own pairs, maps encodings to images.

The attacker encodes images like the private ones, under keys of its own, and trains a network to
recover the image with the largest share in an encoding. No structure of the encoder is used.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.any_encoder.own_encodings import OwnBatch
from instahide.attacks.any_encoder.towers import BLOCK
from instahide.attacks.any_encoder.training import train_on_own_encodings
from instahide.attacks.base import EncodingObservation, Progress, RecoveredImages, require
from instahide.attacks.budget import Budget
from instahide.attacks.shadow_encodings import missing_shadow
from instahide.attacks.unet import UNet

#: Units of the hidden layer of the dense part.
HIDDEN = 512


class InversionNetwork(nn.Module):
    """Images from encodings of any shape.

    A dense part sees all values at once. Where encodings have the height and width of images, a
    U-Net, which starts at the identity where channels agree, is added.

    Args:
        shape: (C, H, W) of an image.
        encoded: (channels, height, width) of an encoding.
    """

    def __init__(self, shape: tuple[int, ...], encoded: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.unet = UNet(encoded[0], shape[0]) if shape[1:] == encoded[1:] else None
        values, pixels = (int(torch.Size(each).numel()) for each in (encoded, shape))
        last = nn.Linear(HIDDEN, pixels)
        if self.unet is not None:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.dense = nn.Sequential(
            nn.Linear(2 * values, HIDDEN), nn.LayerNorm(HIDDEN), nn.ReLU(inplace=True), last
        )

    def forward(self, encodings: Tensor) -> Tensor:
        """(n, ...) -> (n, C, H, W)."""
        flat = encodings.flatten(1)
        images: Tensor = self.dense(torch.cat([flat, flat.abs()], dim=1)).unflatten(1, self.shape)
        return images if self.unet is None else images + self.unet(encodings)


@dataclass(frozen=True)
class LearnedInversion:
    """One image per encoding, by a network trained on the attacker's own encodings.

    Attributes:
        steps: training steps; fewer if the budget ends before.
    """

    steps: int = 2000
    name: str = "inversion"
    title: str = "Inversion by a network trained on the attacker's own encodings"
    paper: str = "Carlini et al., Is Private Learning Possible with Instance Encoding?, S&P 2021"
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation
    any_encoder: ClassVar[bool] = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if the attacker has images like the private ones."""
        if len(observation) == 0 or observation.encodings.ndim != 4:
            return "The attacker sees no encodings of the form channels, height, width."
        return missing_shadow(observation)

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> RecoveredImages:
        """Recover one image per encoding."""
        began = time.monotonic()
        shape = require(observation.shadow).shape
        network = InversionNetwork(shape, tuple(observation.encodings.shape[1:]))

        def loss_of(batch: OwnBatch) -> Tensor:
            targets = batch.images[batch.shares.argmax(dim=1)]
            return F.l1_loss(network(batch.encodings), targets)

        trained = train_on_own_encodings(
            network, loss_of, observation,
            steps=self.steps, copies=1, budget=budget, progress=progress,
        )  # fmt: skip
        with torch.inference_mode():
            parts = torch.split(observation.encodings, BLOCK)
            images = torch.cat([network(part) for part in parts])
        statistics = trained.statistics() | {"seconds": time.monotonic() - began}
        targets = torch.arange(len(images))
        return RecoveredImages(images, targets, dominant=True, statistics=statistics)

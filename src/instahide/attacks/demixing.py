"""Demixing: networks recover an image from a single encoding.

Under a mask, a shipped network first predicts the signs that the mask removed from color images, up
to one sign for the encoding. That needs no images of the attacker. A mix looks much like its
strongest image, so the encoding with these signs already shows it.

Huang et al. (ICML 2020, section 5) train a generative adversarial network to undo a mix. Here it is
a U-Net, trained on encodings that the attacker makes: its own images, mixed with public ones under
the scheme and its own keys. It starts as the identity.

The encrypted image cannot be told from its private partners, because their coefficients have the
same distribution. So the network learns to recover the private image with the largest coefficient.

Under a mask x and -x look alike, so both count as right.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.base import EncodingObservation, Progress, RecoveredImages, require
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.recovery.sign_network import (
    COLOURS,
    predicted_signs,
    shipped_network,
)
from instahide.attacks.shadow_encodings import ShadowBatch, missing_shadow, shadow_batches
from instahide.attacks.training_clock import TrainingClock
from instahide.attacks.unet import UNet

#: Encodings of a training batch, all of different images.
BATCH = 32
#: Adam's highest learning rate.
RATE = 2e-3
#: Number of encodings per forward pass.
BLOCK = 250


@dataclass(frozen=True)
class Demixing:
    """The strongest private image of every encoding.

    Attributes:
        steps: training steps on the attacker's own images, if it has some; fewer if the budget ends
            before.
    """

    steps: int = 2000
    name: str = "demixing"
    title: str = "The strongest image of single encodings, by networks"
    paper: str = "Huang et al., InstaHide, ICML 2020, section 5 (arXiv:2010.02772)"
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation
    augmented: ClassVar[bool] = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies to mixes: of masked color images always, else with shadow images."""
        if observation.scheme.k == 1:
            return "The scheme does not mix images (k is 1)."
        if len(observation) == 0:
            return "The attacker sees no encodings."
        return None if _signs_are_predicted(observation) else missing_shadow(observation)

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> RecoveredImages:
        """Recover one image per encoding."""
        began = time.monotonic()
        images, statistics = _network_input(observation, observation.encodings), {}
        if missing_shadow(observation) is None:
            network, steps, loss = self._trained(observation, budget, progress)
            with torch.inference_mode():
                images = torch.cat([network(part) for part in torch.split(images, BLOCK)])
            statistics = {"steps": float(steps), "loss": loss}
        statistics["seconds"] = time.monotonic() - began
        targets = torch.arange(len(images))
        return RecoveredImages(images, targets, dominant=True, statistics=statistics)

    def _trained(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> tuple[UNet, int, float]:
        """The trained network, its number of steps, and the mean loss of the last ones."""
        network = UNet(observation.encodings.shape[1])
        optimiser = torch.optim.Adam(network.parameters())
        batches = shadow_batches(
            require(observation.shadow), observation.scheme, public=observation.public,
            images=BATCH, encodings=BATCH,
        )  # fmt: skip
        clock = TrainingClock(self.steps, budget)
        while not clock.over:
            for group in optimiser.param_groups:
                group["lr"] = RATE * clock.rate
            loss = _loss(network, next(batches), observation)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            clock.tick(loss.item())
            progress(f"step {clock.steps}, loss {clock.loss:.4f}", clock.done)
        return network.eval(), clock.steps, clock.loss


def _signs_are_predicted(observation: EncodingObservation) -> bool:
    """Whether signs must be predicted, and can be: of gray images the prediction makes it worse."""
    return observation.scheme.mask and observation.encodings.shape[1] == COLOURS


def _network_input(observation: EncodingObservation, encodings: Tensor) -> Tensor:
    """The input of the network: ``encodings`` with predicted signs, or |x| under a mask."""
    if not _signs_are_predicted(observation):
        return encodings.abs() if observation.scheme.mask else encodings
    signs = predicted_signs(replace(observation, encodings=encodings), shipped_network())
    return encodings.abs() * signs.to(encodings)


def _loss(network: UNet, batch: ShadowBatch, observation: EncodingObservation) -> Tensor:
    """Mean absolute difference from the private image with the largest coefficient."""
    targets = batch.images[batch.coefficients.argmax(dim=1)]
    recovered = network(_network_input(observation, batch.encodings))
    if observation.scheme.mask:
        products = (recovered * targets).sum(dim=(1, 2, 3), keepdim=True)
        recovered = torch.where(products < 0, -recovered, recovered)
    return F.l1_loss(recovered, targets)

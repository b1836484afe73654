"""The attack of Carlini et al., to compare with ours: it recovers images by Adam.

Carlini et al., "Is Private Learning Possible with Instance Encoding?" (arXiv:2011.05315), as their
released code has it: the mean of (|x| - |sum of lambda_j x_j|)^2 falls for 1,000 steps, while a
small bonus keeps images from being grey; then every image is stretched to its full range, and a
network with one hidden layer of ten sets the colour of each pixel right. They trained it once on
images of their own. So is ours, on shadow images that it recovers itself.

Their network for pairs of encodings takes hours on a GPU (`similarity_network`). `Carlini` compares
encodings by the features of our reconstruction attack instead, as docs/attacks/reconstruction.md
measures it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from instahide.attacks.base import (
    AssignedImages,
    Budget,
    EncodingObservation,
    Progress,
    require,
)
from instahide.attacks.baselines.carlini_assignment import assign_as_published
from instahide.attacks.reconstruction.clustering import all_pairs
from instahide.attacks.reconstruction.pair_encoder.selection import default_features
from instahide.attacks.reconstruction.recovery.coefficients import from_labels, weights
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

#: Steps of Adam, their rate, and how much the mean size of pixels counts beside the mean error.
STEPS, RATE, BONUS = 1000, 0.01, 0.05
#: Their images are from -1 to 1, of half the deviation that normalized ones have.
UNIT = 0.5
#: Every pixel is on its own: so many at a time stay in the processor's cache.
COLUMNS = 64
#: The network that sets colours right: hidden units, steps, their rate.
HIDDEN, COLOUR_STEPS, COLOUR_RATE = 10, 400, 0.02
#: Shadow images that it learns from, and encodings of each.
SHADOWS, COPIES = 48, 20
#: Fewer encodings of an image form no group.
LEAST_COPIES = 3


@dataclass(frozen=True)
class Carlini:
    """Two private images of each encoding, by the groups and the descent of Carlini et al.

    Attributes:
        steps: of Adam for each pixel; fewer if the budget ends before.
        seed: of the encodings that groups are grown from.
    """

    steps: int = STEPS
    seed: int = 0
    name: str = "carlini"
    title: str = "Reconstruction as Carlini et al. published it, without their pair network"
    paper: str = "Carlini et al., Is Private Learning Possible with Instance Encoding? (2011.05315)"
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation

    def applies(self, observation: EncodingObservation) -> str | None:
        """It needs soft labels, and several encodings of an image that mix two private ones."""
        copies = observation.threat.encodings_per_image
        if copies is None or copies < LEAST_COPIES:
            return f"It is not known that there are {LEAST_COPIES} encodings of an image or more."
        if observation.scheme.private_k != 2 or not observation.scheme.mask:
            return "The attack is for masked mixes of two private images."
        if observation.labels is None or observation.threat.labels != "soft":
            return "The attacker has no soft labels."
        return None

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> AssignedImages:
        """One image a group. Half of the time is for colours, if there are shadow images."""
        progress("comparing encodings", 0.0)
        likeness = all_pairs(default_features(observation, None, progress))
        colours = None
        if observation.shadow is not None and len(observation.shadow) >= 2:
            progress("learning colours", 0.1)
            half = budget.part(budget.left / 2)
            colours = learnt_colours(observation.shadow, observation.scheme, self.steps, half)
        progress("recovering images", 0.5)
        return attack_as_published(
            observation,
            likeness,
            round(len(observation) / require(observation.threat.encodings_per_image)),
            torch.Generator().manual_seed(self.seed),
            colours,
            steps=self.steps,
            budget=budget,
        )


def recovered_by_adam(
    encodings: Tensor, weights: Tensor, steps: int = STEPS, budget: Budget | None = None
) -> Tensor:
    """(m, C, H, W) images, each stretched to the range from -1 to 1.

    Args:
        encodings: (n, C, H, W).
        weights: (n, m) coefficient of each image in each encoding, 0 where it is not.
        steps: of Adam.
        budget: of which each part of the pixels gets its share; without one, all steps are taken.
    """
    split = torch.split((UNIT * encodings.abs()).flatten(1), COLUMNS, dim=1)
    whole, parts = budget or Budget(), []
    for number, part in enumerate(split):
        share = whole.part(whole.left / (len(split) - number))
        parts.append(_descended(part, weights, steps, share))
    values = torch.cat(parts, dim=1)
    least, most = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    stretched = 2 * (values - least) / (most - least).clamp(min=1e-9) - 1
    return stretched.reshape(-1, *encodings.shape[1:])


def their_coefficients(labels: Tensor, members: Tensor, images: int) -> Tensor:
    """(n, k) from soft labels (n, c); images of one class share theirs evenly.

    Args:
        labels: of the encodings.
        members: (n, k) images of each.
        images: how many there are.
    """
    even, present = torch.ones(members.shape), (labels > 0).float()
    held = weights(members, even, images)
    # The class of an image is the one most over-represented in the encodings that hold it.
    shares = held.T @ present / held.sum(dim=0)[:, None].clamp(min=1)
    classes = (shares - present.mean(dim=0)).argmax(dim=1)
    return from_labels(labels, classes, members, even)


def learnt_colours(
    shadow: ImageTable, scheme: Scheme, steps: int = STEPS, budget: Budget | None = None
) -> nn.Module:
    """A network from the channels of a pixel as it was recovered to what they should be.

    Args:
        shadow: the attacker's own images, whose encodings it recovers.
        scheme: that the attacked encodings were made with.
        steps: of each recovery.
        budget: of the recovery.
    """
    batch = next(shadow_batches(shadow, scheme, images=SHADOWS, encodings=SHADOWS * COPIES))
    seen = _pixels(recovered_by_adam(batch.encodings, batch.coefficients, steps, budget))
    wanted, channels = _pixels(batch.images), seen.shape[1]
    network = nn.Sequential(nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, channels))
    optimiser = torch.optim.Adam(network.parameters(), lr=COLOUR_RATE)
    for _ in range(COLOUR_STEPS):
        loss = (network(seen) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


@torch.no_grad()
def recoloured(images: Tensor, network: nn.Module) -> Tensor:
    """(m, C, H, W) images, normalized, after the network of `learnt_colours`."""
    count, channels, height, width = images.shape
    pixels: Tensor = network(_pixels(images))
    return pixels.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def recover_as_published(
    observation: EncodingObservation, found: AssignedImages, colours: nn.Module | None = None
) -> AssignedImages:
    """The images of ``found`` recovered anew, by Adam, on the same assignment.

    Args:
        observation: the encodings. Without soft labels, coefficients are those of ``found``.
        found: images with their members and coefficients.
        colours: see `learnt_colours`; None to leave them as they are.
    """
    members, count = found.assignment, len(found.images)
    coefficients = found.coefficients
    if observation.labels is not None and observation.threat.labels == "soft":
        coefficients = their_coefficients(observation.labels, members, count)
    images = recovered_by_adam(observation.encodings, weights(members, coefficients, count))
    if colours is not None:
        images = recoloured(images, colours)
    return replace(found, statistics={}, images=images, coefficients=coefficients, confidence=None)


def attack_as_published(
    observation: EncodingObservation,
    likeness: Tensor,
    count: int,
    generator: torch.Generator,
    colours: nn.Module | None = None,
    *,
    steps: int = STEPS,
    budget: Budget | None = None,
) -> AssignedImages:
    """Images by their assignment, their coefficients and their recovery.

    Args:
        observation: encodings with soft labels.
        likeness: (n, n) of the encodings: theirs is of `similarity_network.all_similarities`.
        count: of private images.
        generator: of the encodings that groups are grown from.
        colours: see `learnt_colours`; None to leave them as they are.
        steps: of the recovery.
        budget: of the recovery.
    """
    found = assign_as_published(likeness, require(observation.labels), count, generator)
    mixes = weights(found.members, found.coefficients, found.images)
    images = recovered_by_adam(observation.encodings, mixes, steps, budget)
    if colours is not None:
        images = recoloured(images, colours)
    return AssignedImages(images, found.members, found.coefficients)


def _descended(sizes: Tensor, weights: Tensor, steps: int, budget: Budget | None = None) -> Tensor:
    """(m, p) values of some pixels, from ``sizes`` (n, p) of the encodings there.

    The derivative is written out: a graph would be kept of every step, and cost half the time.
    """
    images = torch.zeros(weights.shape[1], sizes.shape[1]).to(sizes)
    optimiser = torch.optim.Adam([images], lr=RATE)
    for _ in range(steps):
        if budget is not None and budget.left == 0:
            break
        mixed = weights @ images
        # From 0 both signs are as near. All pixels must begin the same way; theirs go down.
        error = mixed - torch.where(mixed > 0, sizes, -sizes)
        gradient = weights.T @ error * (2 / len(sizes))
        images.grad = gradient - BONUS / len(images) * images.sign()
        optimiser.step()
    return images


def _pixels(images: Tensor) -> Tensor:
    """(n, C, H, W) -> (n H W, C)."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)

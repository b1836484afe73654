"""The attack of Carlini et al., as a baseline: it recovers images by Adam.

Carlini et al., "Is Private Learning Possible with Instance Encoding?" (arXiv:2011.05315), after
their released code. Adam minimizes the mean of (|x| - |sum of lambda_j x_j|)^2 for 1,000 steps,
with a small bonus that keeps images from being gray. Then every image is stretched to its full
range, and a network with one hidden layer of ten units corrects the color of each pixel. They
trained this network once on their own images. Here it is trained on shadow images, as recovered by
the attack.

Their network for pairs of encodings takes hours on a GPU (`similarity_network`). `Carlini` compares
encodings by the features of `ReconstructionAttack` instead; docs/attacks/reconstruction.md has the
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from instahide.attacks.base import AssignedImages, EncodingObservation, Progress, require
from instahide.attacks.baselines.all_pairs import all_pairs
from instahide.attacks.baselines.carlini_assignment import assign_as_published
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.pair_encoder.selection import default_features
from instahide.attacks.reconstruction.recovery.coefficients import from_labels, weights
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

#: Steps of Adam, learning rate, and weight of the mean absolute pixel relative to the mean error.
STEPS, RATE, BONUS = 1000, 0.01, 0.05
#: Their images range from -1 to 1, with half the standard deviation of normalized images.
UNIT = 0.5
#: Pixels are independent; number of pixels at a time, so that they stay in the processor's cache.
COLUMNS = 256
#: The network that corrects colors: hidden units, steps, learning rate.
HIDDEN, COLOUR_STEPS, COLOUR_RATE = 10, 400, 0.02
#: Number of shadow images to train it on, and encodings of each.
SHADOWS, COPIES = 48, 20
#: Minimum number of encodings of an image.
LEAST_COPIES = 3


@dataclass(frozen=True)
class Carlini:
    """Recovers two private images per encoding by the clusters and the descent of Carlini et al.

    Attributes:
        steps: steps of Adam for each pixel; fewer if the budget ends before.
        seed: seed of the encodings from which clusters are grown.
    """

    steps: int = STEPS
    seed: int = 0
    name: str = "carlini"
    title: str = "Reconstruction as Carlini et al. published it, without their pair network"
    paper: str = "Carlini et al., Is Private Learning Possible with Instance Encoding? (2011.05315)"
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies to several masked encodings per image, of two private ones, with soft labels."""
        copies = observation.threat.encodings_per_image
        if copies is None or copies < LEAST_COPIES:
            return f"Each image must be known to have at least {LEAST_COPIES} encodings."
        if observation.scheme.private_k != 2 or not observation.scheme.mask:
            return "The attack is for masked mixes of two private images."
        if observation.labels is None or observation.threat.labels != "soft":
            return "The attacker has no soft labels."
        return None

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> AssignedImages:
        """Recover one image per cluster; half of the time is for colors, given shadow images."""
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
        encodings: (n, C, H, W) encodings.
        weights: (n, m) coefficient of each image in each encoding, 0 if it is not in it.
        steps: steps of Adam.
        budget: time limit, divided among blocks of pixels; by default all steps are taken.
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
    """(n, k) coefficients from soft labels; images of the same class get equal coefficients.

    Args:
        labels: (n, c) soft labels of the encodings.
        members: (n, k) images of each encoding.
        images: number of images.
    """
    even, present = torch.ones(members.shape), (labels > 0).float()
    held = weights(members, even, images)
    # The class of an image is the one most over-represented in its encodings.
    shares = held.T @ present / held.sum(dim=0)[:, None].clamp(min=1)
    classes = (shares - present.mean(dim=0)).argmax(dim=1)
    return from_labels(labels, classes, members, even)


def learnt_colours(
    shadow: ImageTable, scheme: Scheme, steps: int = STEPS, budget: Budget | None = None
) -> nn.Module:
    """Train a network that maps the channels of a recovered pixel to the correct ones.

    Args:
        shadow: the attacker's own images, recovered from the attacker's own encodings.
        scheme: scheme of the attacked encodings.
        steps: steps of the recovery.
        budget: time limit of the recovery.
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
    """(m, C, H, W) normalized images with the colors corrected by the network."""
    count, channels, height, width = images.shape
    pixels: Tensor = network(_pixels(images))
    return pixels.reshape(count, height, width, channels).permute(0, 3, 1, 2)


def recover_as_published(observation: EncodingObservation, found: AssignedImages) -> AssignedImages:
    """Recover the images of ``found`` again by Adam, with the same assignment.

    Colors are not corrected; see `recoloured`.

    Args:
        observation: the encodings. Without soft labels, the coefficients of ``found`` are used.
        found: images with their assignment and coefficients.
    """
    members, count = found.assignment, len(found.images)
    coefficients = found.coefficients
    if observation.labels is not None and observation.threat.labels == "soft":
        coefficients = their_coefficients(observation.labels, members, count)
    images = recovered_by_adam(observation.encodings, weights(members, coefficients, count))
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
    """Run the published assignment, coefficients and recovery.

    Args:
        observation: encodings with soft labels.
        likeness: (n, n) similarities of the encodings; the published attack uses those of
            `similarity_network.all_similarities`.
        count: number of private images.
        generator: generator of the random encodings from which clusters are grown.
        colours: network of `learnt_colours`; None for no color correction.
        steps: steps of the recovery.
        budget: time limit of the recovery.
    """
    found = assign_as_published(likeness, require(observation.labels), count, generator)
    mixes = weights(found.members, found.coefficients, found.images)
    images = recovered_by_adam(observation.encodings, mixes, steps, budget)
    if colours is not None:
        images = recoloured(images, colours)
    return AssignedImages(images, found.members, found.coefficients)


def _descended(sizes: Tensor, weights: Tensor, steps: int, budget: Budget | None = None) -> Tensor:
    """(m, p) values of p pixels, from the absolute values ``sizes`` (n, p) of the encodings.

    The gradient is computed explicitly, because autograd would take half of the time.
    """
    images = torch.zeros(weights.shape[1], sizes.shape[1]).to(sizes)
    mixes = SparseMixing.of(weights)
    optimiser = torch.optim.Adam([images], lr=RATE)
    for _ in range(steps):
        if budget is not None and budget.over:
            break
        mixed = mixes.mixed(images)
        # At 0 both signs are equally near. All pixels must start in the same direction: downwards,
        # as in the released code.
        error = mixed - torch.where(mixed > 0, sizes, -sizes)
        gradient = mixes.summed(error) * (2 / len(sizes))
        images.grad = gradient - BONUS / len(images) * images.sign()
        optimiser.step()
    return images


def _pixels(images: Tensor) -> Tensor:
    """(n, C, H, W) -> (n H W, C)."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)

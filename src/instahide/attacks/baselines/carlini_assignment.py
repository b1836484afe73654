"""The assignment of images to encodings in the attack of Carlini et al., as a baseline.

Carlini et al., "Is Private Learning Possible with Instance Encoding?" (arXiv:2011.05315), after
their released code. Sets of encodings grow by the encoding that is most similar to all members.
Distinct sets on which three starts agree represent one image each. Then the image of a set is
assigned to the encodings that are most similar to the set, if their labels allow it and they have
fewer than two images.

The set sizes are theirs, as fractions of the number of encodings of an image, which was 100. Their
similarities came from a network for pairs, see `similarity_network`; in the last step, from another
network that compares an encoding with three encodings of a set. Here the caller passes the
similarities, and the last step uses their mean over the set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from instahide.attacks.baselines.all_pairs import grow_clusters

#: Sets grown per image, and number of starts that must agree on a set, itself included.
STARTS, AGREEING = 20, 3
#: Sizes relative to the number of encodings of an image: of a set; of the core on which starts must
#: agree; of the smaller core if there are too few sets; of the encodings to which an image is
#: assigned; and of those that determine its class.
WHOLE, CORE, SMALL_CORE, GIVEN, TELLING = 1.0, 0.5, 0.25, 0.8, 0.2


class Assignment(NamedTuple):
    """``members`` (n, 2), -1 for none; ``coefficients`` (n, 2); ``images``, the image count."""

    members: Tensor
    coefficients: Tensor
    images: int


def assign_as_published(
    likeness: Tensor, labels: Tensor, count: int, generator: torch.Generator
) -> Assignment:
    """Assign at most two images to each encoding.

    Args:
        likeness: (n, n) similarities of the encodings.
        labels: (n, c) soft labels, which the attack needs.
        count: number of private images; fewer may be found.
        generator: generator of the random encodings from which sets are grown.
    """
    holding = 2 * len(likeness) / count
    grown = grow_clusters(likeness, round(WHOLE * holding), STARTS * count, generator).members
    sets = _different(grown, round(CORE * holding), round(SMALL_CORE * holding), count)
    core = grown[sets, : round(CORE * holding)]
    near = torch.stack([likeness[rows].float().mean(dim=0) for rows in core], dim=1)
    return _given(near, labels, round(GIVEN * holding), round(TELLING * holding))


def _different(grown: Tensor, core: int, small: int, count: int) -> list[int]:
    """The indices of at most ``count`` distinct sets among ``grown`` (s, size), in this order."""
    encodings = int(grown.max()) + 1
    whole = _indicators(grown, encodings)
    kept: list[int] = []
    for size, agreeing in ((core, AGREEING), (small, 0)):
        inside = _indicators(grown[:, :size], encodings) @ whole.T
        agreed = (inside == size).sum(dim=1) >= agreeing
        for row in range(len(grown)):
            new = not kept or bool(inside[row, kept].max() < size / 2)
            if new and agreed[row] and len(kept) < count:
                kept.append(row)
    return kept


def _indicators(sets: Tensor, encodings: int) -> Tensor:
    """(s, encodings) 1 for the encodings of each set (s, size), otherwise 0."""
    return torch.zeros(len(sets), encodings).to(sets.device).scatter(1, sets, 1.0)


def _given(near: Tensor, labels: Tensor, given: int, telling: int) -> Assignment:
    """Assign each image to its most similar encodings that have its class and fewer than 2 images.

    Its coefficient is the label's value of its class, or half of it if there is no other class.

    Args:
        near: (n, m) similarities of encodings and images.
        labels: (n, c) soft labels.
        given: number of encodings to which an image is assigned, at most.
        telling: number of encodings that determine the class of an image.
    """
    encodings, images = near.shape
    members = torch.full((encodings, 2), -1)
    coefficients = torch.zeros(encodings, 2)
    classes = (labels > 0).sum(dim=1)
    order = near.argsort(dim=0, descending=True)
    for image in range(images):
        own = int((labels[order[:telling, image]] > 0).sum(dim=0).argmax())
        rows = order[:given, image]
        rows = rows[(labels[rows, own] > 0) & (members[rows, 1] < 0)]
        place = (members[rows, 0] >= 0).long()
        members[rows, place] = image
        coefficients[rows, place] = torch.where(classes[rows] == 1, 0.5, 1.0) * labels[rows, own]
    return Assignment(members, coefficients, images)

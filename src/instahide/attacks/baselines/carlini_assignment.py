"""The assignment of the published attack, to set ours beside: who is in which encoding.

Carlini et al., "Is Private Learning Possible with Instance Encoding?" (arXiv:2011.05315), as their
released code has it: sets of encodings grow by whichever is most like all that are in them; those
that three starts agree on, and that differ, stand for an image each; then the encodings that are
most like a set are given its image, as long as labels allow it and they hold fewer than two.

The numbers of encodings are theirs, as shares of those that hold an image, which were 100. Their
likeness was that of a network for pairs, see `similarity_network`. In the last step it was that of
another network, which looks at three encodings of a set at once. Here it is whatever is given, and
its mean over the set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from instahide.attacks.reconstruction.clustering import grow_clusters

#: Sets that are grown for each image, and the starts that must agree on one, itself included.
STARTS, AGREEING = 20, 3
#: Shares of the encodings that hold an image: in a whole set; in the part that starts must agree
#: on; in what is left of it while there are too few sets; of encodings that an image is given to;
#: and of those that tell its class.
WHOLE, CORE, SMALL_CORE, GIVEN, TELLING = 1.0, 0.5, 0.25, 0.8, 0.2


class Assignment(NamedTuple):
    """``members`` (n, 2) of so many ``images``, -1 for none, and their ``coefficients`` (n, 2)."""

    members: Tensor
    coefficients: Tensor
    images: int


def assign_as_published(
    likeness: Tensor, labels: Tensor, count: int, generator: torch.Generator
) -> Assignment:
    """Two images of each encoding, or fewer.

    Args:
        likeness: (n, n) of the encodings.
        labels: (n, c) soft, which their attack needs.
        count: of private images; fewer may be found.
        generator: of the encodings that sets are grown from.
    """
    holding = 2 * len(likeness) / count
    grown = grow_clusters(likeness, round(WHOLE * holding), STARTS * count, generator).members
    sets = _different(grown, round(CORE * holding), round(SMALL_CORE * holding), count)
    core = grown[sets, : round(CORE * holding)]
    near = torch.stack([likeness[rows].float().mean(dim=0) for rows in core], dim=1)
    return _given(near, labels, round(GIVEN * holding), round(TELLING * holding))


def _different(grown: Tensor, core: int, small: int, count: int) -> list[int]:
    """Of the sets (s, size), in the order that they were grown in, at most ``count`` to keep."""
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
    """(s, encodings) 1 where an encoding is in a set (s, size)."""
    return torch.zeros(len(sets), encodings).to(sets.device).scatter(1, sets, 1.0)


def _given(near: Tensor, labels: Tensor, given: int, telling: int) -> Assignment:
    """Image after image to the encodings ``near`` (n, m) it that have its class and room.

    Its coefficient is what the label has of its class, or half if there is no other class.
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

"""Groups of encodings that share a private image, one for each private image.

Greedy: from many encodings a group is grown by whichever encoding is most like all that are in it;
then a choice of groups is made that are dense, were reached from more than one start, and differ.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Groups grown for each private image, and at a time.
STARTS, BLOCK = 25, 250
#: Likenesses above this quantile count as this one: no single pair decides.
CAP = 0.997
#: Encodings up to which likeness is in single precision, rows of it that are made at a time, and
#: rows that stand for all where quantiles are concerned.
SINGLE, ROWS, SAMPLE = 10_000, 1_000, 200
#: How like another a group may be: the last ones only if more groups are needed.
LIKENESS = (0.35, 0.45, 0.55, 0.65, 0.75)
#: Groups that are as like as this are the same; so many must be found, unless none are left.
SAME, SUPPORT, UNSUPPORTED = 0.8, 3, 0.65


class Groups(NamedTuple):
    """``members`` (m, size) encodings of each group, ``densities`` (m,) their mean likeness."""

    members: Tensor
    densities: Tensor


def all_pairs(features: Tensor) -> Tensor:
    """(n, n) likeness of encodings with ``features`` (n, D), capped.

    It is made a few rows at a time, each pair once, and of many encodings in half precision: 50,000
    take 5 GB.
    """
    some = (features[:: max(1, len(features) // SAMPLE)] @ features.T).flatten().sort().values
    cap = float(some[int(CAP * (len(some) - 1))])
    kind = features.dtype if len(features) <= SINGLE else torch.float16
    likeness = torch.empty(len(features), len(features), dtype=kind, device=features.device)
    for start in range(0, len(features), ROWS):
        rows = slice(start, start + ROWS)
        made = (features[rows] @ features[start:].T).clamp(max=cap)
        likeness[rows, start:] = made
        likeness[start:, rows] = made.T
    return likeness


def grow_groups(features: Tensor, size: int, starts: int, generator: torch.Generator) -> Groups:
    """Groups of ``size`` encodings grown from as many as ``starts`` random ones.

    Args:
        features: (n, D), see `standardised`.
        size: of a group: fewer than the encodings that hold an image.
        starts: how many to grow.
        generator: of the starts.
    """
    likeness = all_pairs(features)
    chosen = torch.randperm(len(features), generator=generator)[:starts].to(features.device)
    grown = [_grow(likeness, part, size) for part in torch.split(chosen, BLOCK)]
    members, densities = zip(*grown, strict=True)
    return Groups(torch.cat(members), torch.cat(densities))


def choose_groups(features: Tensor, grown: Groups, count: int) -> Tensor:
    """(m, size) members of at most ``count`` groups of different images, the densest ones."""
    centres = prototypes(features, grown.members)
    alike = centres @ centres.T
    supported = (alike > SAME).sum(dim=1) >= SUPPORT
    order = grown.densities.argsort(descending=True).tolist()
    kept: list[int] = []
    for limit in LIKENESS:
        for row in order:
            if len(kept) == count:
                return grown.members[kept]
            new = not kept or bool(alike[row, kept].max() < limit)
            if new and (supported[row] or limit >= UNSUPPORTED):
                kept.append(row)
    return grown.members[kept]


def find_groups(features: Tensor, count: int, holding: float, generator: torch.Generator) -> Tensor:
    """(m, size) members of at most ``count`` groups.

    Args:
        features: (n, D), see `standardised`.
        count: of private images.
        holding: mean number of encodings that hold an image.
        generator: of the starts.
    """
    size = max(2, round(0.3 * holding))
    grown = grow_groups(features, size, min(len(features), STARTS * count), generator)
    return choose_groups(features, grown, count)


def prototypes(features: Tensor, members: Tensor) -> Tensor:
    """(m, D) mean features of each group, of length 1."""
    return F.normalize(F.embedding_bag(members, features, mode="mean"), dim=1)


def _grow(likeness: Tensor, starts: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Members (s, size), and the mean likeness of the last to the others."""
    members = starts[:, None]
    total = likeness[starts].float()
    rows = torch.arange(len(starts), device=starts.device)
    density = torch.zeros(len(starts)).to(total)
    for held in range(1, size):
        total[rows, members[:, -1]] = -torch.inf
        best = total.max(dim=1)
        density = best.values / held
        members = torch.cat([members, best.indices[:, None]], dim=1)
        total += likeness[best.indices]
    return members, density

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
#: Where the number of images is not known: size of the groups that it is counted by, the share of
#: encodings that one is grown from, and from how many at least.
FIRST, FIRST_SHARE, FIRST_STARTS = 6, 0.25, 1000
#: Likenesses above this quantile count as this one: no single pair decides.
CAP = 0.997
#: Encodings up to which likeness is in single precision, rows of it that are made at a time, and
#: rows that stand for all where quantiles are concerned.
SINGLE, ROWS, SAMPLE = 10_000, 1_000, 200
#: How like another a group may be: the last ones only if more groups are needed.
LIKENESS = (0.35, 0.45, 0.55, 0.65, 0.75)
#: Groups that are as like as this are the same; so many must be found, unless none are left.
SAME, SUPPORT, UNSUPPORTED = 0.8, 3, 0.65


class Clusters(NamedTuple):
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


def grow_clusters(likeness: Tensor, size: int, starts: int, generator: torch.Generator) -> Clusters:
    """Groups of ``size`` encodings grown from as many as ``starts`` random ones.

    Args:
        likeness: (n, n) of the encodings, see `all_pairs`.
        size: of a group: fewer than the encodings that hold an image.
        starts: how many to grow.
        generator: of the starts.
    """
    chosen = torch.randperm(len(likeness), generator=generator)[:starts].to(likeness.device)
    grown = [_grow(likeness, part, size) for part in torch.split(chosen, BLOCK)]
    members, densities = zip(*grown, strict=True)
    return Clusters(torch.cat(members), torch.cat(densities))


def choose_clusters(features: Tensor, grown: Clusters, count: int | None = None) -> Tensor:
    """(m, size) members of groups of different images, the densest ones, and one at least.

    Args:
        features: (n, D), see `standardised`.
        grown: groups, several of an image.
        count: of images, so that less distinct groups are taken while there are fewer. Without it
            there are as many as there are distinct ones that were reached from several starts.
    """
    centres = prototypes(features, grown.members)
    alike = (centres @ centres.T).cpu()
    supported = (alike > SAME).sum(dim=1) >= SUPPORT
    order = grown.densities.argsort(descending=True).tolist()
    kept: list[int] = []
    for limit in LIKENESS:
        if count is None and limit >= UNSUPPORTED:
            break
        for row in order:
            if len(kept) == count:
                break
            new = not kept or bool(alike[row, kept].max() < limit)
            if new and (supported[row] or limit >= UNSUPPORTED):
                kept.append(row)
    return grown.members[torch.tensor(kept or order[:1])]


def find_clusters(
    features: Tensor, count: int | None, per_mix: int, generator: torch.Generator
) -> Tensor:
    """(m, size) members of groups, one for each private image.

    Args:
        features: (n, D), see `standardised`.
        count: of private images, of which no more are found; None if it is not known.
        per_mix: private images in a mix.
        generator: of the starts.
    """
    likeness = all_pairs(features)
    about = _count(features, likeness, generator) if count is None else count
    size = max(2, round(0.3 * len(features) * per_mix / about))
    grown = grow_clusters(likeness, size, STARTS * about, generator)
    del likeness
    return choose_clusters(features, grown, count)


def prototypes(features: Tensor, members: Tensor) -> Tensor:
    """(m, D) mean features of each group, of length 1."""
    return F.normalize(F.embedding_bag(members, features, mode="mean"), dim=1)


def _count(features: Tensor, likeness: Tensor, generator: torch.Generator) -> int:
    """About how many private images there are: as many as there are distinct small groups."""
    starts = max(FIRST_STARTS, round(FIRST_SHARE * len(features)))
    size = min(FIRST, len(features))
    return len(choose_clusters(features, grow_clusters(likeness, size, starts, generator)))


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

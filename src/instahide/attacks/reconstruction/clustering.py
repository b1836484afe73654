"""Clusters of encodings that share a private image, one cluster for each private image.

The algorithm is greedy. From many single encodings it grows clusters, by adding the encoding that
is most similar to all members. It then selects dense, distinct clusters that were reached from more
than one start.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Clusters grown per private image, and number of clusters grown at a time.
STARTS, BLOCK = 25, 250
#: To estimate an unknown number of images: cluster size, fraction of encodings used as starts, and
#: minimum number of starts.
FIRST, FIRST_SHARE, FIRST_STARTS = 6, 0.25, 1000
#: Similarities are clipped at this quantile, so that no single pair dominates.
CAP = 0.997
#: Largest number of encodings with single-precision similarities, number of rows computed at a
#: time, and number of rows from which the quantile is estimated.
SINGLE, ROWS, SAMPLE = 10_000, 1_000, 200
#: Limits of the similarity of two selected clusters; a later limit is used only if there are still
#: too few clusters.
LIKENESS = (0.35, 0.45, 0.55, 0.65, 0.75)
#: Clusters with a similarity above `SAME` are the same. `SUPPORT` of them are required, for limits
#: below `UNSUPPORTED`.
SAME, SUPPORT, UNSUPPORTED = 0.8, 3, 0.65


class Clusters(NamedTuple):
    """``members`` (m, size) encodings of each cluster; ``densities`` (m,) mean similarities."""

    members: Tensor
    densities: Tensor


def all_pairs(features: Tensor) -> Tensor:
    """(n, n) clipped similarities of encodings with ``features`` (n, D).

    They are computed in blocks of rows, each pair once. Above `SINGLE` encodings they are in half
    precision: 50,000 encodings need 5 GB.
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
    """Grow clusters of ``size`` encodings from at most ``starts`` random encodings.

    Args:
        likeness: (n, n) similarities of the encodings, see `all_pairs`.
        size: size of a cluster, less than the number of encodings of an image.
        starts: number of clusters to grow.
        generator: generator of the random starts.
    """
    chosen = torch.randperm(len(likeness), generator=generator)[:starts].to(likeness.device)
    grown = [_grow(likeness, part, size) for part in torch.split(chosen, BLOCK)]
    members, densities = zip(*grown, strict=True)
    return Clusters(torch.cat(members), torch.cat(densities))


def choose_clusters(features: Tensor, grown: Clusters, count: int | None = None) -> Tensor:
    """(m, size) members of the densest distinct clusters, at least one.

    Args:
        features: (n, D) features, see `standardised`.
        grown: clusters, several of each image.
        count: number of images, if known; less distinct clusters are used to reach it. Otherwise
            all distinct clusters that were reached from several starts are returned.
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
    """(m, size) members of clusters, one for each private image.

    Args:
        features: (n, D) features, see `standardised`.
        count: number of private images, and maximum number of clusters; None if unknown.
        per_mix: number of private images in a mix.
        generator: generator of the random starts.
    """
    likeness = all_pairs(features)
    about = _count(features, likeness, generator) if count is None else count
    size = max(2, round(0.3 * len(features) * per_mix / about))
    grown = grow_clusters(likeness, size, STARTS * about, generator)
    del likeness
    return choose_clusters(features, grown, count)


def prototypes(features: Tensor, members: Tensor) -> Tensor:
    """(m, D) mean features of each cluster, normalized to length 1."""
    return F.normalize(F.embedding_bag(members, features, mode="mean"), dim=1)


def _count(features: Tensor, likeness: Tensor, generator: torch.Generator) -> int:
    """Estimate the number of private images by the number of distinct small clusters."""
    starts = max(FIRST_STARTS, round(FIRST_SHARE * len(features)))
    size = min(FIRST, len(features))
    return len(choose_clusters(features, grow_clusters(likeness, size, starts, generator)))


def _grow(likeness: Tensor, starts: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Members (s, size), and the mean similarity of the last member to the others (s,)."""
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

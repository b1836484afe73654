"""Clusters of encodings that share a private image, one cluster for each private image.

The algorithm is greedy. From many single encodings it grows clusters among the neighbours of each,
by adding the encoding that is most similar to all members. It then selects dense, distinct clusters
that were reached from more than one start. Only the nearest neighbours of encodings are compared,
so that memory is linear in the number of encodings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.neighbours import Neighbours, blocks, nearest_neighbours

#: Clusters grown per private image; no more than there are encodings.
STARTS = 25
#: To estimate an unknown number of images: cluster size, fraction of encodings used as starts, and
#: minimum number of starts.
FIRST, FIRST_SHARE, FIRST_STARTS = 6, 0.25, 1000
#: Similarities are clipped at this quantile, so that no single pair dominates; and the number of
#: rows from which the quantile is estimated.
CAP, SAMPLE = 0.99, 200
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


def similarity_cap(features: Tensor) -> float:
    """The similarity of encodings that a share `CAP` of all pairs does not exceed."""
    some = features[:: max(1, len(features) // SAMPLE)]
    alike = (some @ features[:: max(1, len(features) // 10_000)].T).flatten().sort().values
    return float(alike[int(CAP * (len(alike) - 1))])


def grow_clusters(features: Tensor, near: Neighbours, size: int, starts: Tensor) -> Clusters:
    """Grow a cluster of ``size`` encodings from each of ``starts``, among its neighbours.

    Args:
        features: (n, d) features of the encodings.
        near: their neighbours.
        size: size of a cluster, less than the number of encodings of an image; at most one more
            than the number of neighbours.
        starts: (s,) encodings from which to grow.
    """
    cap, width = similarity_cap(features), near.indices.shape[1] + 1
    size = min(size, width)
    members = torch.empty(len(starts), size, dtype=torch.int64, device=features.device)
    densities = torch.empty(len(starts), device=features.device)
    for rows in blocks(len(starts), width * max(width, features.shape[1])):
        own = starts[rows]
        local = torch.cat([own[:, None], near.indices[own].long()], dim=1)
        held = features[local]
        grown, densities[rows] = _grow((held @ held.mT).clamp_(max=cap), size)
        members[rows] = local.gather(1, grown)
    return Clusters(members, densities)


def choose_clusters(features: Tensor, grown: Clusters, count: int | None = None) -> Tensor:
    """(m, size) members of the densest distinct clusters, at least one.

    Args:
        features: (n, d) features.
        grown: clusters, several of each image.
        count: number of images, if known; less distinct clusters are used to reach it. Otherwise
            all distinct clusters that were reached from several starts are returned.
    """
    order = grown.densities.argsort(descending=True)
    centres = prototypes(features, grown.members[order])
    supported = _supported(centres)
    kept: list[int] = []
    for limit in LIKENESS:
        if len(kept) == count or (count is None and limit >= UNSUPPORTED):
            break
        able = supported if limit < UNSUPPORTED else torch.ones_like(supported)
        kept = _distinct(centres, able, kept, limit, count)
    return grown.members[order[torch.tensor(kept or [0]).to(order.device)]]


def find_clusters(
    features: Tensor, count: int | None, per_mix: int, generator: torch.Generator
) -> Tensor:
    """(m, size) members of clusters, one for each private image.

    Args:
        features: (n, d) features.
        count: number of private images, and maximum number of clusters; None if unknown.
        per_mix: number of private images in a mix.
        generator: generator of the random starts.
    """
    near = nearest_neighbours(features)
    order = torch.randperm(len(features), generator=generator).to(features.device)
    about = _count(features, near, order) if count is None else count
    size = max(2, round(0.3 * len(features) * per_mix / about))
    grown = grow_clusters(features, near, size, order[: STARTS * about])
    return choose_clusters(features, grown, count)


def densest_clusters(features: Tensor, size: int, count: int) -> Tensor:
    """(m, size) members of the densest distinct clusters of all encodings, at most ``count``."""
    near = nearest_neighbours(features)
    starts = torch.arange(len(features), device=features.device)
    return choose_clusters(features, grow_clusters(features, near, size, starts))[:count]


def prototypes(features: Tensor, members: Tensor) -> Tensor:
    """(m, d) mean features of each cluster, normalized to length 1."""
    return F.normalize(F.embedding_bag(members, features, mode="mean"), dim=1)


def _count(features: Tensor, near: Neighbours, order: Tensor) -> int:
    """Estimate the number of private images by the number of distinct small clusters."""
    starts = order[: max(FIRST_STARTS, round(FIRST_SHARE * len(features)))]
    return len(choose_clusters(features, grow_clusters(features, near, FIRST, starts)))


def _grow(likeness: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Grow from the first of k encodings: members (s, size) of the k, and the last's similarity.

    Args:
        likeness: (s, k, k) similarities.
        size: size of a cluster.
    """
    rows = torch.arange(len(likeness), device=likeness.device)
    members = torch.zeros(len(likeness), size, dtype=torch.int64, device=likeness.device)
    total, density = likeness[:, 0].clone(), torch.zeros(len(likeness)).to(likeness)
    total[:, 0] = -torch.inf
    for held in range(1, size):
        best = total.max(dim=1)
        density, members[:, held] = best.values / held, best.indices
        total += likeness[rows, best.indices]
        total[rows, best.indices] = -torch.inf
    return members, density


def _supported(centres: Tensor) -> Tensor:
    """(s,) bool: whether at least `SUPPORT` of ``centres`` (s, d) are the same, with itself."""
    counts = [
        (centres[rows] @ centres.T > SAME).sum(dim=1) for rows in blocks(len(centres), len(centres))
    ]
    return torch.cat(counts) >= SUPPORT


def _distinct(
    centres: Tensor, able: Tensor, kept: list[int], limit: float, count: int | None
) -> list[int]:
    """``kept`` with further rows of ``centres`` (s, d) in their order, until there are ``count``.

    Each row is ``able``, and its similarity to each other row that is kept is below ``limit``.
    """
    kept = list(kept)
    for rows in blocks(len(centres), 1 << 14):
        free = able[rows].clone()
        if kept:
            known = centres[torch.tensor(kept).to(centres.device)]
            free &= (centres[rows] @ known.T).amax(dim=1) < limit
        among = free.nonzero()[:, 0] + rows.start
        alike = (centres[among] @ centres[among].T < limit).cpu()
        added: list[int] = []
        for place, row in enumerate(among.tolist()):
            if len(kept) == count:
                return kept
            if bool(alike[place, added].all()):
                added.append(place)
                kept.append(row)
    return kept

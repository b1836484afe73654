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

from instahide.attacks.reconstruction.neighbours import (
    NEIGHBOURS,
    blocks,
    nearest_neighbours,
)

#: Clusters grown per private image; no more than there are encodings.
STARTS = 10
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
#: Number of clusters that are compared with the selected ones at a time.
AT_ONCE = 1024


class Clusters(NamedTuple):
    """``members`` (m, size) encodings of each cluster; ``densities`` (m,) mean similarities."""

    members: Tensor
    densities: Tensor


def similarity_cap(features: Tensor) -> float:
    """The similarity of encodings that a share `CAP` of all pairs does not exceed."""
    some = features[:: max(1, len(features) // SAMPLE)]
    alike = (some @ features[:: max(1, len(features) // 10_000)].T).flatten().sort().values
    return float(alike[int(CAP * (len(alike) - 1))])


def grow_clusters(features: Tensor, size: int, starts: Tensor) -> Clusters:
    """Grow a cluster of ``size`` encodings from each of ``starts``, among its nearest neighbours.

    Args:
        features: (n, d) features of the encodings.
        size: size of a cluster, less than the number of encodings of an image; at most one more
            than the number of neighbours.
        starts: (s,) encodings from which to grow.
    """
    cap, width = similarity_cap(features), min(NEIGHBOURS + 1, len(features))
    size = min(size, width)
    members = torch.empty(len(starts), size, dtype=torch.int64, device=features.device)
    densities = torch.empty(len(starts), device=features.device)
    values = max(len(features), width * max(width, features.shape[1]))
    for rows in blocks(len(starts), values):
        own = starts[rows]
        local = torch.cat([own[:, None], nearest_neighbours(features, own)], dim=1)
        held = features[local]
        grown, densities[rows] = grow((held @ held.mT).clamp_(max=cap), size)
        members[rows] = local.gather(1, grown)
    return Clusters(members, densities)


def choose_clusters(
    features: Tensor, grown: Clusters, count: int | None = None, *, most: int | None = None
) -> Tensor:
    """(m, size) members of the densest distinct clusters, at least one.

    Args:
        features: (n, d) features.
        grown: clusters, several of each image.
        count: number of images, if known; less distinct clusters are used to reach it. Otherwise
            all distinct clusters that were reached from several starts are returned.
        most: largest number of clusters to return, if ``count`` is not known.
    """
    order = grown.densities.argsort(descending=True)
    selection = _Selection(prototypes(features, grown.members[order]))
    for limit in LIKENESS:
        if count is None and limit >= UNSUPPORTED:
            break
        selection.extend(limit, most if count is None else count)
    return grown.members[order[torch.tensor(selection.kept or [0]).to(order.device)]]


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
    order = torch.randperm(len(features), generator=generator).to(features.device)
    about = _count(features, order) if count is None else count
    size = max(2, round(0.3 * len(features) * per_mix / about))
    return choose_clusters(features, grow_clusters(features, size, order[: STARTS * about]), count)


def densest_clusters(features: Tensor, size: int, starts: int, most: int) -> Tensor:
    """(m, size) members of the densest distinct clusters, at most ``most``.

    Args:
        features: (n, d) features of encodings in random order.
        size: size of a cluster.
        starts: number of encodings from which clusters grow.
        most: largest number of clusters.
    """
    first = torch.arange(min(starts, len(features)), device=features.device)
    return choose_clusters(features, grow_clusters(features, size, first), most=most)


def prototypes(features: Tensor, members: Tensor) -> Tensor:
    """(m, d) mean features of each cluster, normalized to length 1."""
    return F.normalize(F.embedding_bag(members, features, mode="mean"), dim=1)


def _count(features: Tensor, order: Tensor) -> int:
    """Estimate the number of private images by the number of distinct small clusters."""
    starts = order[: max(FIRST_STARTS, round(FIRST_SHARE * len(features)))]
    return len(choose_clusters(features, grow_clusters(features, FIRST, starts)))


def grow(likeness: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Grow a cluster from the first of k encodings.

    Returns:
        Its members (s, size) of the k, and the mean similarity (s,) of the last to the others.

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


class _Selection:
    """Selects distinct clusters by their `prototypes` (s, d), which are in order of density.

    Attributes:
        kept: positions of the selected clusters.
    """

    def __init__(self, centres: Tensor) -> None:
        self.kept: list[int] = []
        self._centres = centres
        self._supported = torch.zeros(len(centres), dtype=torch.bool, device=centres.device)
        self._known = self._supported.clone()

    def extend(self, limit: float, count: int | None) -> None:
        """Select further clusters, each less similar than ``limit`` to all others, up to ``count``.

        Below `UNSUPPORTED`, only those of which there are several are selected.
        """
        for rows in torch.split(torch.arange(len(self._centres)), AT_ONCE):
            if len(self.kept) == count:
                return
            self._extend(rows.to(self._centres.device), limit, count)

    def _extend(self, rows: Tensor, limit: float, count: int | None) -> None:
        if self.kept:
            known = self._centres[torch.tensor(self.kept).to(rows.device)]
            rows = rows[(self._centres[rows] @ known.T).amax(dim=1) < limit]
        if limit < UNSUPPORTED:
            rows = rows[self._are_supported(rows)]
        distinct = (self._centres[rows] @ self._centres[rows].T < limit).cpu()
        added: list[int] = []
        for place, row in enumerate(rows.tolist()):
            if len(self.kept) == count:
                return
            if bool(distinct[place, added].all()):
                added.append(place)
                self.kept.append(row)

    def _are_supported(self, rows: Tensor) -> Tensor:
        """(r,) bool: whether at least `SUPPORT` clusters are the same as each of ``rows`` (r,)."""
        new = rows[~self._known[rows]]
        for some in blocks(len(new), len(self._centres)):
            same = self._centres[new[some]] @ self._centres.T > SAME
            self._supported[new[some]] = same.sum(dim=1) >= SUPPORT
        self._known[new] = True
        return self._supported[rows]

"""Clusters grown on the similarities of all pairs, as the published attack does.

Memory is quadratic in the encodings; our own attack compares nearest neighbours only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.clustering import Clusters

#: Number of clusters grown at a time.
BLOCK = 250
#: Similarities are clipped at this quantile, so that no single pair dominates.
CAP = 0.997
#: Largest number of encodings with single-precision similarities, number of rows computed at a
#: time, and number of rows from which the quantile is estimated.
SINGLE, ROWS, SAMPLE = 10_000, 1_000, 200


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

"""The most similar rows of feature matrices, computed in blocks: memory is linear in the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

#: Number of neighbours of an encoding.
NEIGHBOURS = 200
#: Number of similarities in memory at a time.
BLOCK_VALUES = 1 << 24


class Neighbours(NamedTuple):
    """``indices`` (n, k) int32, most similar first, and ``similarities`` (n, k) float32."""

    indices: Tensor
    similarities: Tensor


def nearest_neighbours(features: Tensor, count: int = NEIGHBOURS) -> Neighbours:
    """The ``count`` rows with the largest inner product with each row (n, d), without itself.

    All pairs are compared, because with features of this kind an approximate index misses true
    neighbours: they are hardly more similar than others.
    """
    count = min(count, len(features) - 1)
    indices = torch.empty(len(features), count, dtype=torch.int32, device=features.device)
    similarities = torch.empty(len(features), count, device=features.device)
    for rows in blocks(len(features), len(features)):
        alike = features[rows] @ features.T
        alike.diagonal(rows.start).fill_(-torch.inf)
        best = alike.topk(count, dim=1)
        indices[rows], similarities[rows] = best.indices.int(), best.values
    return Neighbours(indices, similarities)


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of ``rows`` such that a block of ``width`` columns has at most `BLOCK_VALUES`."""
    step = max(1, BLOCK_VALUES // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))

"""The most similar rows of feature matrices, computed in blocks: memory is linear in the rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

#: Number of neighbours of an encoding.
NEIGHBOURS = 200
#: Number of similarities in memory at a time.
BLOCK_VALUES = 1 << 24


def nearest_neighbours(features: Tensor, rows: Tensor, count: int = NEIGHBOURS) -> Tensor:
    """(r, count) the rows of ``features`` (n, d) with the largest inner product with each of some.

    The most similar comes first. There are fewer if ``features`` has no more rows than ``count``.

    All pairs are compared, because with features of this kind an approximate index misses true
    neighbours: they are hardly more similar than others.

    Args:
        features: (n, d) features.
        rows: (r,) the rows whose neighbours are wanted. A row is not its own neighbour.
        count: number of neighbours.
    """
    alike = features[rows] @ features.T
    alike.scatter_(1, rows[:, None], -torch.inf)
    return alike.topk(min(count, len(features) - 1), dim=1).indices


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of ``rows`` such that a block of ``width`` columns has at most `BLOCK_VALUES`."""
    step = max(1, BLOCK_VALUES // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))

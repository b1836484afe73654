"""Whitening, which removes directions that all natural images share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data import ImageTable

#: Largest number of evenly spaced rows from which the covariance is computed.
ROWS = 20_000
#: Number of rows that are held as floats at a time.
BLOCK = 4096
#: Variance added to every direction, relative to the mean variance. It accounts for images outside
#: the pool, and prevents directions that no patch uses from dominating.
FLOOR = 1e-3


class Pool:
    """A table of patches as flat features, and the inverse of their covariance.

    Args:
        table: N patches, memory-mapped or not; they stay 8-bit.
        squared: use squares of the normalized values as features.
    """

    def __init__(self, table: ImageTable, *, squared: bool = False) -> None:
        self.table = table
        self.squared = squared
        size = int(np.prod(table.shape[1:]))
        self._scale = torch.from_numpy(np.repeat(table.scale, size))
        self._bias = torch.from_numpy(np.repeat(table.bias, size))
        self.mean, covariance = self._moments()
        floor = FLOOR * float(covariance.diagonal().mean())
        covariance.diagonal().add_(floor)
        self._factor = torch.linalg.cholesky(covariance)
        self.lengths = self._lengths()

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, rows: NDArray[np.int64] | slice) -> Tensor:
        """(m, D) float32 centred features of the patches ``rows``."""
        return self._features(rows).sub_(self.mean)

    def centred(self, values: Tensor) -> Tensor:
        """(n, D) features of normalized ``values`` (n, C, H, W), centered like a mix of patches."""
        flat = values.flatten(1)
        return (flat.square() if self.squared else flat) - self.mean

    def filters(self, features: Tensor) -> Tensor:
        """(n, D): covariance^-1 ``features`` (n, D), for products with patches."""
        solved: Tensor = torch.cholesky_solve(features.T, self._factor)
        return solved.T

    def whitened(self, features: Tensor) -> Tensor:
        """(n, D) features with identity covariance, up to the added variance."""
        solved: Tensor = torch.linalg.solve_triangular(self._factor, features.T, upper=False)
        return solved.T

    def _features(self, rows: NDArray[np.int64] | slice) -> Tensor:
        # In place, because the time of the search is dominated by memory access.
        pixels = torch.from_numpy(np.array(self.table.pixels[rows]))
        flat = pixels.flatten(1).float().mul_(self._scale).add_(self._bias)
        return flat.square_() if self.squared else flat

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of the features."""
        size = int(np.prod(self.table.shape))
        total, products = torch.zeros(size), torch.zeros(size, size)
        chosen = np.arange(0, len(self), -(-len(self) // ROWS))
        for start in range(0, len(chosen), BLOCK):
            block = self._features(chosen[start : start + BLOCK])
            total += block.sum(dim=0)
            products.addmm_(block.T, block)
        mean = total / len(chosen)
        return mean, products / len(chosen) - torch.outer(mean, mean)

    def _lengths(self) -> Tensor:
        """(N,) lengths of the whitened patches."""
        parts = [
            torch.linalg.vector_norm(self.whitened(self.rows(slice(start, start + BLOCK))), dim=1)
            for start in range(0, len(self), BLOCK)
        ]
        return torch.cat(parts)

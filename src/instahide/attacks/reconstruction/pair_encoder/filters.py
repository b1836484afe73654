"""Gaussian blur and high-pass filters for batches of images on any device."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def blur(images: Tensor, sigma: float) -> Tensor:
    """(..., H, W) images blurred by a Gaussian of ``sigma`` pixels; 0 returns them unchanged."""
    if sigma <= 0:
        return images
    rows, columns = (_blurring(side, sigma).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.T


def high_pass(images: Tensor, sigma: float = 1.0) -> Tensor:
    """(..., H, W) images minus their `blur`: edges and texture."""
    return images - blur(images, sigma)


def from_neighbours(images: Tensor, sigma: float) -> Tensor:
    """(..., H, W) `blur` that excludes the center pixel."""
    rows, columns = (_blurring(side, sigma).to(images) for side in images.shape[-2:])
    own = rows.diagonal()[:, None] * columns.diagonal()
    return (rows @ images @ columns.T - own * images) / (1 - own)


@lru_cache(maxsize=64)
def _blurring(side: int, sigma: float) -> Tensor:
    """(side, side) matrix that blurs along one axis, with mirrored boundaries.

    On small images two matrix products are faster than a convolution, for every sigma.
    """
    radius = math.ceil(4 * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-((offsets / sigma) ** 2) / 2)
    places = np.arange(side)[:, None] + offsets
    # Mirrored without repeating the edge: with period 2 (side - 1).
    period = max(2 * (side - 1), 1)
    places = np.abs((places + side - 1) % period - (side - 1)) if side > 1 else 0 * places
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], places), weights / weights.sum())
    return torch.from_numpy(matrix.astype(np.float32))

"""Gaussian blur and what it takes away, for batches of images on any device."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def blur(images: Tensor, sigma: float) -> Tensor:
    """(..., H, W) under a Gaussian of ``sigma`` pixels; 0 changes nothing."""
    if sigma <= 0:
        return images
    rows, columns = (_blurring(side, sigma).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.T


def high_pass(images: Tensor, sigma: float = 1.0) -> Tensor:
    """(..., H, W) less its `blur`: edges and texture."""
    return images - blur(images, sigma)


def high_pass_adjoint(images: Tensor, sigma: float = 1.0) -> Tensor:
    """(..., H, W) whose product with any image is that of ``images`` with its `high_pass`."""
    rows, columns = (_blurring(side, sigma).to(images) for side in images.shape[-2:])
    return images - rows.T @ images @ columns


def from_neighbours(images: Tensor, sigma: float) -> Tensor:
    """(..., H, W) `blur` of every pixel from those around it, the pixel itself left out."""
    rows, columns = (_blurring(side, sigma).to(images) for side in images.shape[-2:])
    own = rows.diagonal()[:, None] * columns.diagonal()
    return (rows @ images @ columns.T - own * images) / (1 - own)


def desaturate(images: Tensor, share: float) -> Tensor:
    """(..., C, H, W) with ``share`` of its colour: 1 changes nothing, 0 leaves a grey image."""
    grey = images.mean(dim=-3, keepdim=True)
    return grey + share * (images - grey)


@lru_cache(maxsize=64)
def _blurring(side: int, sigma: float) -> Tensor:
    """(side, side) matrix that blurs along one axis, the image mirrored at its edges.

    On small images two matrix products are quicker than any convolution, for whatever sigma.
    """
    reach = math.ceil(4 * sigma)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-((offsets / sigma) ** 2) / 2)
    places = np.arange(side)[:, None] + offsets
    # Mirrored without repeating the edge: with period 2 (side - 1).
    period = max(2 * (side - 1), 1)
    places = np.abs((places + side - 1) % period - (side - 1)) if side > 1 else 0 * places
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], places), weights / weights.sum())
    return torch.from_numpy(matrix.astype(np.float32))

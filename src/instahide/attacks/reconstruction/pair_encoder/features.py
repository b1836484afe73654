"""Untrained features of encodings: edges of x^2.

The mask leaves |x| unchanged, and therefore x^2 = (sum of lambda_j x_j)^2. The expectation of x^2
over the other images is lambda_i^2 x_i^2 plus a constant. Encodings that share an image share its
edges in x^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.pair_encoder.filters import high_pass

#: Number of encodings whose squares are in memory at a time.
BLOCK = 512


def magnitudes(encodings: Tensor) -> Tensor:
    """(n, C, H, W) |x|, scaled to a mean square of 1 over all encodings."""
    return encodings.abs().div_(root_mean_square(encodings).clamp(min=1e-12))


def root_mean_square(encodings: Tensor) -> Tensor:
    """() root mean square of the values of all encodings (n, C, H, W), without a copy of them."""
    squares = [block.square().sum(dtype=torch.float64) for block in torch.split(encodings, BLOCK)]
    return (torch.stack(squares).sum() / encodings.numel()).sqrt().to(encodings.dtype)


def edges_of_square(encodings: Tensor) -> Tensor:
    """(n, D) features: the high-pass of x^2."""
    return standardised(raw_edges_of_square(magnitudes(encodings)))


def raw_edges_of_square(sizes: Tensor) -> Tensor:
    """(n, D) high-pass of x^2, from `magnitudes` (n, C, H, W), each row independently."""
    return raw_edges(sizes.square())


def raw_edges(encodings: Tensor) -> Tensor:
    """(n, D) high-pass of encodings (n, C, H, W) without a mask, each row independently."""
    return high_pass(encodings).flatten(1)


def standardised(features: Tensor) -> Tensor:
    """(n, D) features minus their mean, normalized to length 1: inner products are similarities."""
    return torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)

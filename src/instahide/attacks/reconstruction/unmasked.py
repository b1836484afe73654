"""Recovery without a mask, where no sign is lost: plain and Mixup."""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.coefficients import LEAST, weights

#: Rounds in which images and coefficients are found from each other.
ROUNDS = 12
#: Against images that hardly anything is known of, relative to a coefficient of 1.
RIDGE = 1e-3


def recover_unmasked(
    encodings: Tensor, members: Tensor, coefficients: Tensor, count: int, *, rounds: int = ROUNDS
) -> tuple[Tensor, Tensor]:
    """Images (count, C, H, W) and coefficients (n, k) by alternating least squares.

    Args:
        encodings: (n, C, H, W).
        members: (n, k) images of each.
        coefficients: (n, k) to begin with; their mean sum is kept.
        count: of images.
        rounds: 0 where the coefficients are right as they are.
    """
    total = coefficients.sum(dim=1).mean()
    images = least_squares(encodings, weights(members, coefficients, count))
    for _ in range(rounds):
        flat = images.flatten(1)
        gram = (flat @ flat.T)[members[:, :, None], members[:, None, :]]
        gram = gram + RIDGE * gram.mean() * torch.eye(gram.shape[1]).to(gram)
        seen = (encodings.flatten(1) @ flat.T).gather(1, members)
        coefficients = torch.linalg.solve(gram, seen[:, :, None])[:, :, 0].clamp(LEAST, 1)
        coefficients = coefficients * (total / coefficients.sum(dim=1).mean())
        images = least_squares(encodings, weights(members, coefficients, count))
    return images, coefficients


def least_squares(encodings: Tensor, weights: Tensor) -> Tensor:
    """(m, C, H, W) images whose sums under ``weights`` (n, m) come nearest to the encodings."""
    gram = weights.T @ weights + RIDGE * torch.eye(weights.shape[1]).to(weights)
    flat = torch.linalg.solve(gram, weights.T @ encodings.flatten(1))
    return flat.reshape(-1, *encodings.shape[1:])

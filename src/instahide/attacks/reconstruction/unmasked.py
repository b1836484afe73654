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
    encodings: Tensor, members: Tensor, coefficients: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (count, C, H, W), members (n, k) and coefficients (n, k) by alternating least squares.

    Args:
        encodings: (n, C, H, W).
        members: (n, k) images of each to begin with.
        coefficients: (n, k) to begin with; their mean sum is kept.
        count: of images.
    """
    total = coefficients.sum(dim=1).mean()
    images = least_squares(encodings, weights(members, coefficients, count))
    for _ in range(ROUNDS):
        # Every encoding in terms of all images: there are more values than images.
        flat = images.flatten(1)
        gram = flat @ flat.T
        gram += RIDGE * gram.diagonal().mean() * torch.eye(count).to(gram)
        shares = torch.linalg.solve(gram, flat @ encodings.flatten(1).T).T
        coefficients, members = shares.topk(members.shape[1], dim=1)
        coefficients = coefficients.clamp(LEAST, 1)
        coefficients = coefficients * (total / coefficients.sum(dim=1).mean())
        images = least_squares(encodings, weights(members, coefficients, count))
    return images, members, coefficients


def least_squares(encodings: Tensor, weights: Tensor) -> Tensor:
    """(m, C, H, W) images whose sums under ``weights`` (n, m) come nearest to the encodings."""
    gram = weights.T @ weights + RIDGE * torch.eye(weights.shape[1]).to(weights)
    flat: Tensor = torch.linalg.solve(gram, weights.T @ encodings.flatten(1))
    return flat.reshape(-1, *encodings.shape[1:])

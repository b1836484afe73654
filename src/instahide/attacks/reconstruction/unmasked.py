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
    encodings: Tensor, members: Tensor, coefficients: Tensor, found: int, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (m, C, H, W), members (n, k) and coefficients (n, k) by alternating least squares.

    While fewer images were found than there are, what the encoding that they explain least has
    besides them stands for another one, as in dictionary learning (K-SVD, Aharon et al. 2006).

    Args:
        encodings: (n, C, H, W).
        members: (n, k) images of each to begin with.
        coefficients: (n, k) to begin with; their mean sum is kept.
        found: images that members are of.
        count: of images there are.
    """
    per_mix, total = members.shape[1], coefficients.sum(dim=1).mean()
    images = least_squares(encodings, weights(members, coefficients, found))
    while True:
        for _ in range(ROUNDS):
            coefficients, members = _shares(encodings, images).topk(per_mix, dim=1)
            coefficients = coefficients.clamp(LEAST, 1)
            coefficients = coefficients * (total / coefficients.sum(dim=1).mean())
            images = least_squares(encodings, weights(members, coefficients, len(images)))
        if len(images) >= count:
            return images, members, coefficients
        explained = (_shares(encodings, images) @ images.flatten(1)).reshape(encodings.shape)
        rest = encodings - explained
        images = torch.cat([images, rest[rest.flatten(1).norm(dim=1).argmax(), None]])


def _shares(encodings: Tensor, images: Tensor) -> Tensor:
    """(n, m) every encoding in terms of all images: there are more values than images."""
    flat = images.flatten(1)
    gram = flat @ flat.T
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(flat)).to(gram)
    shares: Tensor = torch.linalg.solve(gram, flat @ encodings.flatten(1).T).T
    return shares


def least_squares(encodings: Tensor, weights: Tensor) -> Tensor:
    """(m, C, H, W) images whose sums under ``weights`` (n, m) come nearest to the encodings."""
    gram = weights.T @ weights + RIDGE * torch.eye(weights.shape[1]).to(weights)
    flat: Tensor = torch.linalg.solve(gram, weights.T @ encodings.flatten(1))
    return flat.reshape(-1, *encodings.shape[1:])

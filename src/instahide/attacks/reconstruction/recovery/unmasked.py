"""Recovery from encodings without a mask (plain and Mixup), whose signs are known."""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.recovery.coefficients import LEAST, weights

#: Rounds of alternating least squares.
ROUNDS = 12
#: If the number of images is unknown, a further image is accepted if it reduces the error by this
#: multiple of the worst encoding's error, and by this fraction of the total energy, which is more
#: than the error due to `RIDGE`.
SEVERAL, SHARE = 3, 1e-4
#: Ridge penalty, relative to a coefficient of 1, for images that are hardly determined.
RIDGE = 1e-3


def recover_unmasked(
    encodings: Tensor, members: Tensor, coefficients: Tensor, found: int, count: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (m, C, H, W), members (n, k) and coefficients (n, k) by alternating least squares.

    While images are missing, the residual of the worst-explained encoding is added as another
    image, as in dictionary learning (K-SVD, Aharon et al. 2006).

    Args:
        encodings: (n, C, H, W) encodings.
        members: (n, k) initial images of each encoding.
        coefficients: (n, k) initial coefficients; their mean sum is kept.
        found: number of images to which ``members`` refer.
        count: number of images. If it is None, images are added as long as they explain the
            residuals of several encodings.
    """
    total = coefficients.sum(dim=1).mean()
    images = least_squares(encodings, weights(members, coefficients, found))
    best = _alternated(encodings, images, members.shape[1], total)
    while count is None or len(best[0]) < count:
        rest = _rest(encodings, best[0])
        errors = rest.square().flatten(1).sum(dim=1)
        worst = int(errors.argmax())
        more = _alternated(
            encodings, torch.cat([best[0], rest[worst, None]]), members.shape[1], total
        )
        gain = errors.sum() - _rest(encodings, more[0]).square().sum()
        if count is None and gain < max(SEVERAL * errors[worst], SHARE * encodings.square().sum()):
            break
        best = more
    return best


def _alternated(
    encodings: Tensor, images: Tensor, per_mix: int, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, members and coefficients after alternating updates."""
    members, coefficients = _largest(encodings, images, per_mix, total)
    for _ in range(ROUNDS):
        images = least_squares(encodings, weights(members, coefficients, len(images)))
        members, coefficients = _largest(encodings, images, per_mix, total)
    return images, members, coefficients


def _largest(
    encodings: Tensor, images: Tensor, per_mix: int, total: Tensor
) -> tuple[Tensor, Tensor]:
    """(n, k) images with the largest coefficients; these (n, k), scaled to mean sum ``total``."""
    shares, members = _shares(encodings, images).topk(per_mix, dim=1)
    coefficients = shares.clamp(LEAST, 1)
    return members, coefficients * (total / coefficients.sum(dim=1).mean())


def _rest(encodings: Tensor, images: Tensor) -> Tensor:
    """(n, C, H, W) residuals of the encodings after a fit of all images."""
    return encodings - (_shares(encodings, images) @ images.flatten(1)).reshape(encodings.shape)


def _shares(encodings: Tensor, images: Tensor) -> Tensor:
    """(n, m) least-squares coefficients of all images in every encoding."""
    flat = images.flatten(1)
    gram = flat @ flat.T
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(flat)).to(gram)
    shares: Tensor = torch.linalg.solve(gram, flat @ encodings.flatten(1).T).T
    return shares


def least_squares(encodings: Tensor, weights: Tensor) -> Tensor:
    """(m, C, H, W) images whose mixes by ``weights`` (n, m) are closest to the encodings."""
    gram = weights.T @ weights + RIDGE * torch.eye(weights.shape[1]).to(weights)
    flat: Tensor = torch.linalg.solve(gram, weights.T @ encodings.flatten(1))
    return flat.reshape(-1, *encodings.shape[1:])

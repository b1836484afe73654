"""Recovery without a mask, where no sign is lost: plain and Mixup."""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.recovery.coefficients import LEAST, weights

#: Rounds in which images and coefficients are found from each other.
ROUNDS = 12
#: What an image that is not known to be there must explain: encodings as ill explained as the worst
#: one, and a share of all that is seen, which is more than is lost to `RIDGE`.
SEVERAL, SHARE = 3, 1e-4
#: Against images that hardly anything is known of, relative to a coefficient of 1.
RIDGE = 1e-3


def recover_unmasked(
    encodings: Tensor, members: Tensor, coefficients: Tensor, found: int, count: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (m, C, H, W), members (n, k) and coefficients (n, k) by alternating least squares.

    While fewer images were found than there are, what the encoding that they explain least has
    besides them stands for another one, as in dictionary learning (K-SVD, Aharon et al. 2006).

    Args:
        encodings: (n, C, H, W).
        members: (n, k) images of each to begin with.
        coefficients: (n, k) to begin with; their mean sum is kept.
        found: images that members are of.
        count: of images there are. Where it is not known, another one is taken as long as it
            explains what several encodings have besides those that were found.
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
    """Images, members and coefficients, each from the others, in turn."""
    members, coefficients = _largest(encodings, images, per_mix, total)
    for _ in range(ROUNDS):
        images = least_squares(encodings, weights(members, coefficients, len(images)))
        members, coefficients = _largest(encodings, images, per_mix, total)
    return images, members, coefficients


def _largest(
    encodings: Tensor, images: Tensor, per_mix: int, total: Tensor
) -> tuple[Tensor, Tensor]:
    """(n, k) images that each encoding has most of; (n, k) coefficients, of mean sum ``total``."""
    shares, members = _shares(encodings, images).topk(per_mix, dim=1)
    coefficients = shares.clamp(LEAST, 1)
    return members, coefficients * (total / coefficients.sum(dim=1).mean())


def _rest(encodings: Tensor, images: Tensor) -> Tensor:
    """(n, C, H, W) what the images do not explain."""
    return encodings - (_shares(encodings, images) @ images.flatten(1)).reshape(encodings.shape)


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

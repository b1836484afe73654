"""Which recovered images are right, told without the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.recovery import recover

#: Iterations under smooth noise: fewer than for images that are handed back.
ITERATIONS = 3


def agreement(sizes: Tensor, weights: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
    """(m,) the least likeness of ``images`` and what either half of the encodings gives.

    Each half has a start of its own. What is in the encodings comes back in all three. What was
    fitted to noise does not, nor do signs that settled in patches: each start would settle
    otherwise.

    Args:
        sizes: (n, C, H, W) `magnitudes` of encodings in random order.
        weights: (n, m) coefficient of each image in each encoding.
        images: (m, C, H, W) recovered from all encodings.
        generator: of the two starts.
    """
    first, second = (
        recover(sizes[half], weights[half], generator=generator, iterations=ITERATIONS)
        for half in (slice(0, None, 2), slice(1, None, 2))
    )
    pairs = (likeness(first, second), likeness(first, images), likeness(second, images))
    return torch.stack(pairs).amin(dim=0)


def likeness(first: Tensor, second: Tensor) -> Tensor:
    """(m,) correlation of each image (m, C, H, W) with its like, whatever their signs."""
    one, other = (images - images.mean(dim=(2, 3), keepdim=True) for images in (first, second))
    return torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1), dim=1).abs()

"""Which recovered images are right, told without the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.filters import blur, high_pass
from instahide.attacks.reconstruction.recovery import refine

#: Blur in pixels that takes the detail from the images before each half finds it anew.
START_BLUR = 1.0
ITERATIONS = 3


def agreement(sizes: Tensor, weights: Tensor, images: Tensor) -> Tensor:
    """(m,) correlation of the detail that either half of the encodings finds in each image.

    Both halves begin with the same blurred images. What is in the encodings comes back in both;
    what was fitted to noise does not.

    Args:
        sizes: (n, C, H, W) `magnitudes` of encodings in random order.
        weights: (n, m) coefficient of each image in each encoding.
        images: (m, C, H, W) recovered from all of them.
    """
    start = blur(images, START_BLUR)
    first, second = (
        refine(sizes[half], weights[half], start, ITERATIONS)
        for half in (slice(0, None, 2), slice(1, None, 2))
    )
    return likeness(first, second)


def likeness(first: Tensor, second: Tensor) -> Tensor:
    """(m,) correlation of the detail of two sets of images (m, C, H, W)."""
    details = (high_pass(images).flatten(1) for images in (first, second))
    return torch.nn.functional.cosine_similarity(*details, dim=1)

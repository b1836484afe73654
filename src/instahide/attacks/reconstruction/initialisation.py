"""A first guess at the private images, coarse to fine: which of them are of one sign where.

From a random start the signs of phase retrieval settle in patches, each right by itself. Power
iteration on x^2 finds relative signs of all images at once: the expectation of x^2 holds
2 lambda_i lambda_j x_i x_j for each pair in a mix.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.filters import blur, faded
from instahide.attacks.reconstruction.signs import aligned

#: Blur in pixels of an image of 32, share of colour, and iterations.
STAGES = ((6.0, 0.0, 20), (4.0, 0.1, 15), (3.0, 0.2, 12), (2.0, 0.4, 12))
SIDE = 32
#: Precision of an image's values where those of encodings have a mean square of 1.
RIDGE = 0.2
#: Deviation of the images that are handed back: less than it will be, as long as they are smooth.
SPREAD = 1.2


def power_iteration(sizes: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """(m, C, H, W) smooth images, right but for scale and a sign.

    Args:
        sizes: (n, C, H, W) `magnitudes`.
        weights: (n, m) coefficient of each image in each encoding, 0 where it is not.
        generator: of the random start.
    """
    # Under so much blur half the resolution loses nothing, and is four times as fast.
    height, width = (-(-side // 2) for side in sizes.shape[2:])
    shape = (sizes.shape[1], height, width)
    energy = F.adaptive_avg_pool2d(sizes.square(), (height, width)).flatten(1)
    mean = energy.mean(dim=1, keepdim=True)
    excess = energy / mean
    excess = (excess - excess.mean(dim=0)) / mean
    # An image's own energy says nothing of relative signs, and would drown what does.
    own = weights.square().T @ excess
    ridge = RIDGE * torch.eye(weights.shape[1]).to(sizes)
    solve = torch.linalg.inv(weights.T @ (weights / mean) + ridge)
    images = torch.randn((weights.shape[1], 1, *shape[1:]), generator=generator).to(sizes)
    images = images.expand(-1, *shape).contiguous()
    for sigma, colour, iterations in STAGES:
        sigma = sigma * min(shape[1:]) / SIDE
        for _ in range(iterations):
            flat = faded(blur(images, sigma), colour).flatten(1)
            flat = solve @ (weights.T @ (excess * (weights @ flat)) - own * flat)
            images = faded(blur(flat.reshape(images.shape), sigma), colour)
            images = images / images.square().mean(dim=0).sqrt().clamp(min=1e-6)
            images = blur(images, sigma / 2)
    return SPREAD * F.interpolate(aligned(images), sizes.shape[2:], mode="bilinear")

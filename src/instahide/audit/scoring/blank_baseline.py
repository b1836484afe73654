"""The criterion for a recovered image: it must beat the best blank picture for its original.

A blank picture has a single color and shows nothing of an image. Its SSIM to an image that is
nearly constant is high, so an SSIM alone does not prove that anything was recovered.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv3d

from instahide.audit.scoring import metrics

#: No image counts as recovered at this SSIM or below.
HALF = 0.5
#: The SSIM of a recovered image covers at least this share of the distance from the best blank
#: picture's SSIM to 1. It is a share so that a perfect recovery of a nearly constant image counts,
#: for which no fixed distance remains. A fifth is about twice the largest share of pictures that
#: show nothing of the image: for 300 color photographs of 32 x 32 pixels, 0.11 of the mean of all
#: after the best affine map of its channels, 0.09 of smooth noise, 0.01 of white noise; for 300
#: MNIST digits, 0.11 of smooth noise.
MARGIN = 0.2
#: A smaller difference does not count either, because single precision cannot resolve it. Only an
#: image that deviates from its local means by less than a fifth of a gray level is that blank.
LEAST_GAIN = 5e-4
#: Number of constants tried, evenly spaced in asinh(value / sqrt(C1)). On this scale, the
#: similarity of a constant to each local mean has the same width, so that the best of them is less
#: than 1e-4 below the optimum.
LEVELS = 512
#: Number of images whose local means are computed at a time.
BLOCK = 256
#: Constants of SSIM: (0.01 L)^2 and (0.03 L)^2.
C1, C2 = (0.01 * metrics.RANGE) ** 2, (0.03 * metrics.RANGE) ** 2


def best_blank(originals: Tensor) -> Tensor:
    """(m,) the highest SSIM of a blank picture to each of the images (m, C, H, W), from 0 to 1.

    The constant c of each channel is optimized separately, because SSIM is a mean over channels.
    With local means u and variances v, the SSIM of a constant is the mean of ``C2 / (v + C2) * (2 c
    u + C1) / (c^2 + u^2 + C1)``. The maximum of this sum has no closed form, so it is taken over a
    table of `LEVELS` constants.
    """
    if not len(originals):
        return torch.zeros(0)
    levels, similarity = _levels()
    step = float(torch.asinh(levels[-1] / math.sqrt(C1))) / (LEVELS - 1)
    found = []
    for block in torch.split(originals, BLOCK):
        means, contrast = _local(block)
        places = (torch.asinh(means / math.sqrt(C1)) / step).round().long().clamp(0, LEVELS - 1)
        weights = torch.zeros(len(means), LEVELS, dtype=torch.float64)
        weights.scatter_add_(1, places, contrast / means.shape[1])
        best = (weights @ similarity).amax(dim=1)
        found.append(best.reshape(block.shape[:2]).mean(dim=1).float())
    return torch.cat(found)


def counts_as_recovered(ssim: Tensor, blank: Tensor) -> Tensor:
    """(m,) bool: an SSIM above `HALF` that exceeds that of the best ``blank`` by the `MARGIN`."""
    gain = ssim - blank
    return (ssim > HALF) & (gain >= MARGIN * (1 - blank)) & (gain > LEAST_GAIN)


def _levels() -> tuple[Tensor, Tensor]:
    """(LEVELS,) constants from 0 to 1, and (LEVELS, LEVELS) luminance terms of SSIM of each two."""
    last = math.asinh(metrics.RANGE / math.sqrt(C1))
    levels = math.sqrt(C1) * torch.linspace(0, last, LEVELS, dtype=torch.float64).sinh()
    one, other = levels[:, None], levels[None, :]
    return levels, (2 * one * other + C1) / (one.square() + other.square() + C1)


def _local(images: Tensor) -> tuple[Tensor, Tensor]:
    """(m * C, windows) local means, and C2 / (local variance + C2), under the window of SSIM."""
    radius, deviation = metrics.window(images.shape[2:])
    places = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-places.square() / (2 * deviation**2))
    line = line / line.sum()
    kernel = line
    for _ in images.shape[3:]:
        kernel = kernel[..., None] * line
    convolve = conv3d if images.ndim == 5 else conv2d
    channels = images.double().flatten(0, 1)[:, None]
    means = convolve(channels, kernel[None, None])
    variance = (convolve(channels.square(), kernel[None, None]) - means.square()).clamp(min=0)
    return means.flatten(1), (C2 / (variance + C2)).flatten(1)

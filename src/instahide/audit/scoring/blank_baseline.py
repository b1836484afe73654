"""When a recovered image counts as recovered: it must beat the best blank picture for its original.

A blank picture is one colour all over. It shows nothing of an image, yet its SSIM to an image that
is itself nearly flat is high: an SSIM by itself does not say that anything was recovered.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from instahide.audit.scoring import metrics

#: No image counts as recovered at this SSIM or below.
HALF = 0.5
#: A recovered image lies at least this share of the way from the best blank picture's SSIM to 1.
#: A share, since a perfect recovery of a nearly flat image must count, too: no fixed distance is
#: left there. A fifth is twice the most that pictures reached which show nothing of the image: of
#: 300 colour photographs of 32 x 32 pixels, the mean of all came at most 0.11 of the way under the
#: best affine map of its colours, smooth noise 0.09, white noise 0.01; of 300 MNIST digits, smooth
#: noise came 0.11.
MARGIN = 0.2
#: Nor is a difference below this counted, which single precision does not resolve reliably. Only
#: an image that deviates from its local means by less than a fifth of a grey level is so blank.
LEAST_GAIN = 5e-4
#: Constants that are tried, spaced evenly in asinh(value / sqrt(C1)). In this scale the similarity
#: of a constant to each local mean has the same width, so that the best of so many is less than
#: 1e-4 below the best of all.
LEVELS = 512
#: Images whose local means are computed at a time.
BLOCK = 256
#: Constants of SSIM: (0.01 L)^2 and (0.03 L)^2.
C1, C2 = (0.01 * metrics.RANGE) ** 2, (0.03 * metrics.RANGE) ** 2


def best_blank(originals: Tensor) -> Tensor:
    """(m,) the highest SSIM of a blank picture to each of the images (m, C, H, W), from 0 to 1.

    Each channel has its own constant c, and each is searched for alone, since SSIM is a mean over
    channels. With local means u and variances v, the SSIM of a constant is the mean of
    ``C2 / (v + C2) * (2 c u + C1) / (c^2 + u^2 + C1)``. That is a sum of many rational functions,
    whose maximum has no closed form; it is read from a table of `LEVELS` constants.
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
    radius, deviation = metrics.window(images.shape)
    places = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-places.square() / (2 * deviation**2))
    line = line / line.sum()
    kernel = (line[:, None] * line[None, :])[None, None]
    channels = images.double().flatten(0, 1)[:, None]
    means = conv2d(channels, kernel)
    variance = (conv2d(channels.square(), kernel) - means.square()).clamp(min=0)
    return means.flatten(1), (C2 / (variance + C2)).flatten(1)

"""A small network from images to images (U-Net, Ronneberger, Fischer and Brox, 2015)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Channels at full resolution; twice as many at each halving, so that every level costs the same.
WIDTH = 16
#: Number of resolutions: full, half, ...
LEVELS = 4
#: Channels per group in group normalization; every width is a multiple.
GROUPS = 8


class UNet(nn.Module):
    """An encoder and decoder over several resolutions with skip connections.

    It uses group normalization (Wu and He, 2018), so that images of a batch do not interact.

    Args:
        channels: channels of input and output.
        width: hidden channels at full resolution.
        levels: number of resolutions; halves are rounded up to at least one pixel.
    """

    def __init__(self, channels: int, width: int = WIDTH, levels: int = LEVELS) -> None:
        super().__init__()
        widths = [width << level for level in range(levels)]
        self.down = nn.ModuleList(
            _convolutions(inputs, outputs) for inputs, outputs in pairwise([channels, *widths])
        )
        self.up = nn.ModuleList(
            _convolutions(below + skip, skip) for skip, below in pairwise(widths)
        )
        self.out = nn.Conv2d(width + channels, channels, 1)
        # Initialized to the identity, so that it learns a residual.
        nn.init.zeros_(self.out.weight)
        nn.init.dirac_(self.out.weight[:, width:])

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) -> the same shape."""
        skips: list[Tensor] = []
        image = x
        for layer in self.down:
            x = layer(F.avg_pool2d(x, 2, ceil_mode=True) if skips else x)
            skips.append(x)
        for layer, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            larger = F.interpolate(x, size=skip.shape[2:], mode="bilinear")
            x = layer(torch.cat([larger, skip], dim=1))
        out: Tensor = self.out(torch.cat([x, image], dim=1))
        return out


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(inplace=True),
    )

"""A small network from images to images (U-Net, Ronneberger, Fischer and Brox, 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.base import require

#: Channels at full resolution, at half, ...; twice as many, so that every level costs the same.
WIDTHS = (16, 32, 64, 128)
#: Channels per group in group normalization; every width is a multiple.
GROUPS = 8


class UNet(nn.Module):
    """An encoder and decoder over several resolutions with skip connections.

    It uses group normalization (Wu and He, 2018), so that images of a batch do not interact. With
    as many outputs as inputs it is initialized to the identity, so that it learns a residual.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; those of the input by default.
        widths: hidden channels of each resolution; halves are rounded up to at least one pixel.
        block: makes the layers of a resolution, for its input and output channels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | None = None,
        widths: Sequence[int] = WIDTHS,
        block: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        outputs, block = outputs or inputs, block or _convolutions
        self.down = nn.ModuleList(block(one, other) for one, other in pairwise([inputs, *widths]))
        self.up = nn.ModuleList(block(below + skip, skip) for skip, below in pairwise(widths))
        self.out = nn.Conv2d(widths[0] + inputs, outputs, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(require(self.out.bias))
        if inputs == outputs:
            nn.init.dirac_(self.out.weight[:, widths[0] :])

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, H, W) -> (n, outputs, H, W)."""
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

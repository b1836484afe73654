"""A trained network that recovers the strongest private image of a single masked encoding.

It continues the sign network: with the same weights at first, and three further outputs, which are
added to the signed encoding. So before any training its result is the encoding with the signs that
the sign network predicts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instahide.attacks.reconstruction.recovery.sign_network import (
    COLOURS,
    WIDTHS,
    SignNetwork,
    convolutions,
    input_planes,
)
from instahide.attacks.unet import UNet


class DemixingNetwork(nn.Module):
    """A U-Net from |x| and an anchor to an image, right up to its sign.

    It has about 260,000 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(4 * COLOURS, 2 * COLOURS, WIDTHS, convolutions)

    @classmethod
    def from_signs(cls, signs: SignNetwork) -> DemixingNetwork:
        """A network whose result is the encoding with the signs that ``signs`` predicts."""
        network = cls()
        weights = signs.unet.state_dict()
        for name in ("out.weight", "out.bias"):
            weights[name] = torch.cat([weights[name], torch.zeros_like(weights[name])])
        network.unet.load_state_dict(weights)
        return network

    def forward(self, sizes: Tensor, mean: Tensor, anchors: Tensor) -> Tensor:
        """(n, 3, H, W) the strongest private image, minus the mean.

        Args:
            sizes: (n, 3, H, W) absolute differences from ``mean``, of pixels from 0 to 1.
            mean: (3,) mean that the normalization subtracts.
            anchors: (n, 1, H, W) 1 at a pixel that is positive in the mix, 0 elsewhere.
        """
        signs, rest = self.unet(input_planes(sizes, mean, anchors)).chunk(2, dim=1)
        image: Tensor = sizes * signs.tanh() + rest
        return image

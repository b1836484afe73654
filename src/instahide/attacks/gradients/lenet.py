"""The untrained network that gradient inversion was first shown on."""

from __future__ import annotations

import math

import torch
from torch import nn

#: Channels of each convolution, and the bound of the uniform weights.
WIDTH, BOUND = 12, 0.5


def lenet(shape: tuple[int, ...], classes: int, *, seed: int) -> nn.Sequential:
    """Logits (n, classes) of images (n, *shape).

    As in Zhu et al.'s "Deep Leakage from Gradients" (NeurIPS 2019): sigmoids, which have second
    derivatives, strides in place of pooling, and large uniform weights.

    Args:
        shape: (C, H, W) of the images, or (C, D, H, W) of the volumes.
        classes: outputs.
        seed: of the weights; PyTorch's own generator is left alone.
    """
    channels, *sides = shape
    places = math.prod((side + 3) // 4 for side in sides)
    convolution = nn.Conv2d if len(sides) == 2 else nn.Conv3d
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(
            convolution(channels, WIDTH, 5, stride=2, padding=2),
            nn.Sigmoid(),
            convolution(WIDTH, WIDTH, 5, stride=2, padding=2),
            nn.Sigmoid(),
            convolution(WIDTH, WIDTH, 5, padding=2),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(WIDTH * places, classes),
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-BOUND, BOUND, generator=generator)
    return network

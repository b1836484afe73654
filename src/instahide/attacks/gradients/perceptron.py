"""A network that begins with a dense layer, whose updates can be inverted exactly."""

from __future__ import annotations

import math

import torch
from torch import nn

#: Units of the second layer.
SECOND = 64


def perceptron(shape: tuple[int, ...], classes: int, *, units: int, seed: int) -> nn.Sequential:
    """Logits (n, classes) of images (n, *shape), by three dense layers with ReLUs.

    Args:
        shape: (C, H, W) of the images.
        classes: outputs.
        units: units of the first layer.
        seed: of the weights, PyTorch's initial ones; PyTorch's own generator is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), units),
            nn.ReLU(),
            nn.Linear(units, SECOND),
            nn.ReLU(),
            nn.Linear(SECOND, classes),
        )

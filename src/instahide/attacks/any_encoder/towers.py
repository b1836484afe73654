"""Networks that map encodings and images to vectors, close if they belong to one image."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Length of a vector, and channels of the layers.
VECTOR, WIDTH, HIDDEN = 64, 32, 256
#: Side of the grid at which places are told apart, and number of quantiles of the values.
GRID, QUANTILES = 4, 16
#: Similarities are multiplied by exp of this at the start of the training.
START_SHARPNESS = 2.5
#: Number of encodings per forward pass.
BLOCK = 500


class Tower(nn.Module):
    """Vectors of length 1 of encodings or images.

    The input is x and |x|, because random signs change x and not |x|. Features are a grid of
    convolutional features, their mean and maximum, which do not depend on places, and quantiles of
    the values, which do not depend on their order.

    Args:
        shape: (C, H, W) of an input.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        height, width = shape[1:]
        self.first = _convolution(2 * shape[0], WIDTH)
        self.second = _convolution(WIDTH, 2 * WIDTH)
        self.grid = min(GRID, -(-height // 2)), min(GRID, -(-width // 2))
        places = self.grid[0] * self.grid[1]
        features = 2 * WIDTH * (places + 2) + 2 * QUANTILES
        self.head = nn.Sequential(
            nn.Linear(features, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, VECTOR)
        )
        self.register_buffer("shares", torch.linspace(0, 1, QUANTILES))

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, VECTOR)."""
        maps = self.first(torch.cat([x, x.abs()], dim=1))
        maps = self.second(F.avg_pool2d(maps, 2, ceil_mode=True))
        values = x.flatten(1)
        shares = self.get_buffer("shares")
        quantiles = [v.quantile(shares, dim=1).T for v in (values, values.abs())]
        grid = F.adaptive_avg_pool2d(maps, self.grid).flatten(1)
        features = [grid, maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3)), *quantiles]
        return F.normalize(self.head(torch.cat(features, dim=1)), dim=1)


class Matcher(nn.Module):
    """Similarities of encodings and images, and of encodings with each other.

    Where encodings have the shape of images, both towers start with the same weights, so that
    similar inputs have similar vectors from the start.

    Args:
        shape: (C, H, W) of an image.
        encoded: shape of an encoding.
    """

    def __init__(self, shape: tuple[int, ...], encoded: tuple[int, ...]) -> None:
        super().__init__()
        self.encodings = Tower(encoded)
        self.images = deepcopy(self.encodings) if shape == encoded else Tower(shape)
        self.sharpness = nn.Parameter(torch.tensor(START_SHARPNESS))

    def forward(self, encodings: Tensor, images: Tensor) -> Tensor:
        """(n, m) similarities of encodings (n, ...) and images (m, C, H, W)."""
        similarities: Tensor = self.encodings(encodings) @ self.images(images).T
        return similarities * self.sharpness.exp()

    def among(self, encodings: Tensor) -> Tensor:
        """(n, n) similarities of encodings."""
        vectors = self.encodings(encodings)
        similarities: Tensor = vectors @ vectors.T
        return similarities * self.sharpness.exp()


@torch.inference_mode()
def vectors_of(tower: nn.Module, inputs: Tensor) -> Tensor:
    """(n, VECTOR) of ``inputs`` (n, ...), in blocks."""
    return torch.cat([tower(part) for part in torch.split(inputs, BLOCK)])


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )

"""A small trained network whose features of two encodings are similar if they share an image.

It is a bi-encoder: it computes features of each encoding separately, and the similarities of all
pairs are one matrix product. Carlini et al. (arXiv:2011.05315, section 4.1) compare each pair with
a large network instead, see `similarity_network`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.reconstruction.pair_encoder.features import magnitudes, standardised
from instahide.attacks.reconstruction.pair_encoder.filters import high_pass
from instahide.attacks.reconstruction.pair_encoder.network_file import load_network, save_network

#: Hidden channels and feature channels of the branches.
FINE, COARSE = 16, 32
FINE_FEATURES, COARSE_FEATURES = 8, 24
#: Number of encodings per forward pass.
BATCH = 250
#: The shipped encoder for all other shapes; the least side at which it beats the edges of x^2
#: alone, measured on tuning victims; and the most channels that it reads one by one.
COLOR, LEAST_SIDE, MOST_CHANNELS = (3, 32, 32), 16, 8


class PairEncoder(nn.Module):
    """Features of |x| from branches at full and half resolution, and the edges of x^2.

    It has about 21,000 parameters. The features of each branch are centered over the pixels and
    normalized to length 1, so that no branch dominates. The weights of the branches are learned.

    It reads encodings of any size. Other numbers of channels than its own are read one by one, each
    as a gray image.

    Args:
        channels: number of channels of the encodings, 1 or 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(3 * channels, FINE, 5, padding=2), nn.GELU(),
            nn.Conv2d(FINE, FINE, 3, padding=1), nn.GELU(),
        )  # fmt: skip
        self.coarse = nn.Sequential(
            nn.Conv2d(FINE, COARSE, 3, padding=1), nn.GELU(),
            nn.Conv2d(COARSE, COARSE, 3, padding=1), nn.GELU(),
        )  # fmt: skip
        self.fine_features = nn.Conv2d(FINE, FINE_FEATURES, 1)
        self.coarse_features = nn.Conv2d(COARSE, COARSE_FEATURES, 1)
        self.shares = nn.Parameter(torch.tensor([-1.0, -1.0, 0.0]))
        self.register_buffer("centre", torch.zeros(3 * channels, 1, 1))
        self.register_buffer("spread", torch.ones(3 * channels, 1, 1))

    @property
    def channels(self) -> int:
        """The number of channels of the encodings that it was made for."""
        return len(self.centre) // 3

    def forward(self, sizes: Tensor) -> Tensor:
        """(n, C, H, W) `magnitudes` -> (n, D) features of length 1."""
        return self._by_channels(sizes, self._features)

    def maps(self, sizes: Tensor) -> Tensor:
        """(n, C, H, W) `magnitudes` -> (n, c, H, W) the features, all at full resolution.

        They move with the encodings: the branch at half resolution is computed at every pixel.
        """
        return self._by_channels(sizes, self._maps)

    def _by_channels(self, sizes: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``of`` gives for ``sizes``, or for each channel if it was made for other numbers."""
        if sizes.shape[1] == self.channels:
            return of(sizes)
        each = sizes[:, :, None].expand(-1, -1, self.channels, -1, -1).unbind(1)
        return torch.cat([of(gray) for gray in each], dim=1) / math.sqrt(len(each))

    def _features(self, sizes: Tensor) -> Tensor:
        planes = _planes(sizes)
        fine = self._fine(planes)
        parts = self._parts(planes, fine, self.coarse(F.avg_pool2d(fine, 2)))
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def _maps(self, sizes: Tensor) -> Tensor:
        planes = _planes(sizes)
        fine = self._fine(planes)
        coarse = F.avg_pool2d(F.pad(fine, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
        for layer in self.coarse:
            if isinstance(layer, nn.Conv2d):
                coarse = F.conv2d(coarse, layer.weight, layer.bias, padding=2, dilation=2)
            else:
                coarse = layer(coarse)
        return torch.cat(self._parts(planes, fine, coarse), dim=1)

    def _fine(self, planes: Tensor) -> Tensor:
        found: Tensor = self.fine((planes - self.centre) / self.spread)
        return found

    def _parts(self, planes: Tensor, fine: Tensor, coarse: Tensor) -> list[Tensor]:
        """The weighted features (n, c, h, w) of both branches and the edges of x^2."""
        edges = planes[:, -self.channels :]
        parts = [self.fine_features(fine), self.coarse_features(coarse), edges]
        weights = self.shares.softmax(0).sqrt()
        return [w * _even(part) for w, part in zip(weights, parts, strict=True)]

    def calibrate(self, sizes: Tensor) -> None:
        """Set the mean and standard deviation of the inputs from `magnitudes` (n, C, H, W)."""
        planes = _planes(sizes)
        self.centre = planes.mean(dim=(0, 2, 3)).reshape(-1, 1, 1)
        self.spread = planes.std(dim=(0, 2, 3)).reshape(-1, 1, 1)

    @torch.inference_mode()
    def features(self, encodings: Tensor) -> Tensor:
        """(n, C, H, W) encodings -> (n, D) `standardised` features."""
        sizes = magnitudes(encodings)
        return standardised(torch.cat([self(part) for part in torch.split(sizes, BATCH)]))


def save_encoder(path: Path, encoder: PairEncoder) -> None:
    """Write the weights to ``path``, a safetensors file."""
    save_network(path, encoder)


def load_encoder(path: Path) -> PairEncoder:
    """Read an encoder that `save_encoder` wrote.

    Raises:
        InstaHideError: the file is missing or damaged, or does not contain a pair encoder.
    """
    return load_network(
        path,
        lambda tensors: PairEncoder(len(tensors["centre"]) // 3),
        "a pair encoder",
        "Train one with `python -m experiments.train_pair_encoder`.",
    )


def shipped_encoder(shape: tuple[int, ...]) -> PairEncoder | None:
    """The encoder in this package for encodings of ``shape`` (C, H, W); None if there is none.

    Without an encoder for this very shape it is that for colors, if the images are large enough.
    """
    folder = Path(str(files("instahide.attacks.reconstruction.pair_encoder") / "weights"))
    own = folder / f"{'x'.join(map(str, shape))}.safetensors"
    if own.is_file():
        return load_encoder(own)
    if min(shape[-2:]) < LEAST_SIDE or shape[0] > MOST_CHANNELS:
        return None
    return load_encoder(folder / f"{'x'.join(map(str, COLOR))}.safetensors")


def _planes(sizes: Tensor) -> Tensor:
    """(n, 3C, H, W): |x|, the edges of |x|, and the edges of x^2."""
    return torch.cat([sizes, high_pass(sizes), high_pass(sizes.square())], dim=1)


def _even(features: Tensor) -> Tensor:
    """``features`` (n, c, h, w) with mean 0 in each channel and length 1."""
    centred = features - features.mean(dim=(2, 3), keepdim=True)
    return F.normalize(centred.flatten(1), dim=1).reshape(features.shape)

"""A trained network that predicts which values of an encoding had the same sign before the mask.

The mask removes the signs of a mix, but mixes of images are smooth: where |x| is small along a
curve, the sign changes, and elsewhere neighbors have the same sign. The network sees |x| and one
pixel, the anchor, whose sign is defined as positive. So its prediction is right up to one sign for
each encoding, instead of one for each value.

It was trained on mixes of photographs and of objects in front of plain backgrounds. It knows
neither the private images nor the public ones.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.base import EncodingObservation
from instahide.attacks.reconstruction.pair_encoder.network_file import load_network
from instahide.attacks.unet import UNet

#: Channels of the network, at full resolution, at half, ...
WIDTHS = (24, 32, 48, 72)
#: Channels per group in group normalization.
GROUP = 8
#: Colors of the network's inputs; images with other numbers of channels are read as gray ones.
COLOURS = 3
#: Radius in pixels of the neighborhood whose mean |x| is largest at the anchor.
NEAR = 2
#: Number of values per forward pass.
BATCH = 250 * COLOURS * 32 * 32
#: Mean and standard deviation of photographs, of pixels from 0 to 1, per channel.
NATURAL_MEAN, NATURAL_STD = (0.46, 0.44, 0.40), 0.25


class SignNetwork(nn.Module):
    """A U-Net from |x| and an anchor to the expected sign of every value, relative to the anchor's.

    It has about 260,000 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(4 * COLOURS, COLOURS, WIDTHS, _block)

    def forward(self, sizes: Tensor, mean: Tensor, anchors: Tensor) -> Tensor:
        """(n, 3, H, W) expected signs from -1 to 1.

        Args:
            sizes: (n, 3, H, W) absolute differences from ``mean``, of pixels from 0 to 1.
            mean: (3,) mean that the normalization subtracts.
            anchors: (n, 1, H, W) 1 at the anchor, 0 elsewhere.
        """
        level = ((mean.reshape(-1, 1, 1) - 0.5) * 4).expand_as(sizes)
        planes = [6 * sizes, (sizes + 0.01).log(), level, anchors.expand_as(sizes)]
        signs: Tensor = self.unet(torch.cat(planes, dim=1)).tanh()
        return signs


@torch.no_grad()
def predicted_signs(observation: EncodingObservation, network: SignNetwork) -> Tensor:
    """(n, C, H, W) float16 expected signs from -1 to 1, right up to one sign for each encoding.

    Args:
        observation: encodings (n, C, H, W). Encodings of more or fewer than 3 channels are read as
            gray images, one for each channel.
        network: the trained network, on the device of the encodings.
    """
    encodings = observation.encodings
    mean, std = (moment.to(encodings) for moment in pixel_moments(observation))
    signs = torch.empty_like(encodings, dtype=torch.float16)
    step = max(1, BATCH // max(1, encodings[:1].numel()))
    for start in range(0, len(encodings), step):
        rows = slice(start, start + step)
        signs[rows] = _signs(network, encodings[rows].abs() * std[:, None, None], mean)
    return signs


def pixel_moments(observation: EncodingObservation) -> tuple[Tensor, Tensor]:
    """(C,) mean and (C,) standard deviation of the normalization, for pixels from 0 to 1.

    If they are not stated, as in the authors' challenge, and the encodings have values that such
    pixels cannot have, they are those of photographs.
    """
    mean, std = torch.tensor(observation.mean), torch.tensor(observation.std)
    unstated = bool((mean == 0).all() and (std == 1).all())
    if unstated and observation.encodings.abs().max() > 1:
        return natural_mean(len(mean)), torch.full_like(std, NATURAL_STD)
    return mean, std


def natural_mean(channels: int) -> Tensor:
    """(channels,) mean of photographs, for pixels from 0 to 1."""
    mean = torch.tensor(NATURAL_MEAN)
    return mean if channels == COLOURS else mean.mean().expand(channels)


@lru_cache(maxsize=1)
def shipped_network() -> SignNetwork:
    """The network in this package."""
    folder = files("instahide.attacks.reconstruction.recovery") / "weights"
    path = Path(str(folder / "sign_network.safetensors"))
    return load_network(
        path, lambda _: SignNetwork(), "a sign network", "Install the package again."
    )


def _block(inputs: int, outputs: int) -> nn.Sequential:
    def convolution(channels: int) -> list[nn.Module]:
        layer = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
        return [layer, nn.GroupNorm(outputs // GROUP, outputs), nn.SiLU(inplace=True)]

    return nn.Sequential(*convolution(inputs), *convolution(outputs))


def _signs(network: SignNetwork, sizes: Tensor, mean: Tensor) -> Tensor:
    """(n, C, H, W) expected signs for ``sizes`` of that shape."""
    if sizes.shape[1] == COLOURS:
        found: Tensor = network(sizes, mean, _anchors(sizes))
        return found
    grey = []
    for one in range(sizes.shape[1]):
        channel = sizes[:, [one]].expand(-1, COLOURS, -1, -1)
        signs = network(channel, mean[[one]].expand(COLOURS), _anchors(channel))
        grey.append(signs.mean(dim=1))
    return _aligned(torch.stack(grey, dim=1), sizes)


def _anchors(sizes: Tensor) -> Tensor:
    """(n, 1, H, W) 1 where the mean of |x| in a small neighborhood is largest, 0 elsewhere."""
    grey = sizes.mean(dim=1, keepdim=True)
    pad = min(NEAR, *(side - 1 for side in grey.shape[2:]))
    around = F.avg_pool2d(F.pad(grey, [pad] * 4, mode="reflect"), 2 * pad + 1, 1)
    best = around.flatten(1).argmax(dim=1, keepdim=True)
    return torch.zeros_like(grey).flatten(1).scatter_(1, best, 1.0).reshape(grey.shape)


def _aligned(signs: Tensor, sizes: Tensor) -> Tensor:
    """``signs`` (n, C, H, W) with the channels of an encoding turned to be like the first."""
    values = signs * sizes
    products = (values * values[:, :1]).sum(dim=(2, 3), keepdim=True)
    return signs * torch.where(products < 0, -1.0, 1.0)

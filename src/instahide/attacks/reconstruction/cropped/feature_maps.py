"""Features of encodings that keep their place: they move with the images of a mix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.cropped.moves import flattened, spectra, unflattened
from instahide.attacks.reconstruction.pair_encoder.compression import principal_components
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.pair_encoder.filters import high_pass
from instahide.attacks.reconstruction.pair_encoder.network import PairEncoder

#: Channels of the maps. Nearly all of the energy of an encoder's features is in these directions.
CHANNELS = 8
#: Encodings at a time; every so many values give the directions.
BATCH, EVERY = 250, 7
#: How far noise is whitened: 1 would weight all frequencies alike, although at some of them there
#: is next to no image. Share of the mean energy that is added to each. Chosen on tuning victims.
WHITENED, LEAST = 0.5, 0.01


def feature_maps(encodings: Tensor, encoder: PairEncoder | None, padding: int) -> Tensor:
    """(n, c, H, W) maps of length 1, whose inner products tell which encodings share an image.

    The borders of the maps are 0: black comes in there with every image of a mix, and encodings are
    alike where images were moved alike, whether they share one or not.

    Args:
        encodings: (n, C, H, W) encodings under a mask.
        encoder: encoder of their shape; None for the edges of x^2.
        padding: largest move of an image, and width of the borders.
    """
    sizes = magnitudes(encodings)
    of = _edges_of_square if encoder is None else encoder.to(encodings.device).maps
    with torch.no_grad():
        maps = torch.cat([of(block) for block in torch.split(sizes, BATCH)])
    maps = normalized(within(maps - maps.mean(dim=0), padding))
    channels = maps.transpose(0, 1).flatten(1)[:, ::EVERY].T
    directions = principal_components(channels, min(CHANNELS, maps.shape[1]))
    return whitened(torch.einsum("nchw,cd->ndhw", maps, directions))


def normalized(maps: Tensor) -> Tensor:
    """``maps`` (n, c, H, W), each divided by its length."""
    lengths: Tensor = maps.flatten(1).norm(dim=1).clamp(min=1e-12)
    return maps / lengths[:, None, None, None]


def within(maps: Tensor, padding: int) -> Tensor:
    """``maps`` (n, c, H, W) with 0 in the ``padding`` outermost rows and columns."""
    return F.pad(F.pad(maps, [-padding] * 4), [padding] * 4)


def whitened(maps: Tensor) -> Tensor:
    """``maps`` (n, c, H, W) of length 1, filtered so that all frequencies count more alike.

    Most of what two encodings have in common is not an image that they share, but what encodings
    are like in general. Its energy at each frequency, for all pairs of channels, is divided out.
    """
    height, width = maps.shape[-2:]
    grid = 2 * height, 2 * width
    energy = sum(
        (part @ part.mH for part in map(flattened, _spectra_of(maps, grid))),
        torch.zeros((), device=maps.device),
    )
    mean = energy.diagonal(dim1=1, dim2=2).real.mean()
    values, vectors = torch.linalg.eigh(energy + LEAST * mean * torch.eye(maps.shape[1]).to(energy))
    filters = (vectors * values[:, None] ** (-WHITENED / 2)) @ vectors.mH
    filtered = [
        torch.fft.irfft2(unflattened(filters @ flattened(part), grid), s=grid)[..., :height, :width]
        for part in _spectra_of(maps, grid)
    ]
    return normalized(torch.cat(filtered))


def _spectra_of(maps: Tensor, grid: tuple[int, int]) -> Iterator[Tensor]:
    return (spectra(block, grid) for block in torch.split(maps, BATCH))


def _edges_of_square(sizes: Tensor) -> Tensor:
    return high_pass(sizes.square())

"""Spectral initialization of the private images, from coarse to fine.

From a random start, phase retrieval converges to images whose signs are right only within patches.
Power iteration on x^2 finds the relative signs of all images at once: the expectation of x^2
contains 2 lambda_i lambda_j x_i x_j for each pair in a mix. It can converge to patches too. But at
a quarter of the resolution many starts are cheap, and those with patches explain less. The best
ones continue at half the resolution and in color, where the difference is clear.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.pair_encoder.filters import blur, desaturate
from instahide.attacks.reconstruction.recovery.sign_sync import synchronize_signs
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing

#: Blur, in pixels of an image of `SIDE` pixels, and iterations of the gray start at a quarter of
#: the size.
COARSE = (6.0, 25)
STARTS, FINALISTS = 64, 12
#: A new start replaces the images if it explains this many times as much.
BETTER = 1.05
#: Blur, fraction of color, and iterations at half the size.
STAGES = ((4.0, 0.1, 15), (3.0, 0.2, 12), (2.0, 0.4, 12))
SIDE = 32
#: Factor for the scale of the returned images.
SPREAD = 1.2


def power_iteration(sizes: Tensor, mixes: SparseMixing, generator: torch.Generator) -> Tensor:
    """(m, C, H, W) smooth estimates of the images, up to scale and sign.

    For images that are alone in their mixes, absolute values are returned, because their relative
    signs are undetermined.

    Args:
        sizes: (n, C, H, W) `magnitudes`.
        mixes: coefficients of the images in the encodings.
        generator: generator of the random starts.
    """
    if mixes.alone:
        return _absolute(sizes, mixes)
    grey, excess = _excesses(sizes, mixes)
    return _enlarged(_best(grey, excess, sizes.shape[1], generator), sizes)


def better_start(
    sizes: Tensor, mixes: SparseMixing, images: Tensor, generator: torch.Generator
) -> Tensor | None:
    """The images of `power_iteration` if they explain more than ``images``; otherwise None.

    Partly wrong weights can make all starts converge to patches. Images recovered from these keep
    the patches even after the weights have been corrected. With the corrected weights, such images
    explain clearly less than a new start after the same stages.

    Args:
        sizes: (n, C, H, W) `magnitudes`.
        mixes: coefficients of the images in the encodings.
        images: (m, C, H, W) current estimates.
        generator: generator of the random starts.
    """
    if mixes.alone:
        return None
    grey, excess = _excesses(sizes, mixes)
    shrunk = F.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), (grey.side[0], grey.side[1]))
    present = excess.coloured(shrunk, sizes.shape[1])
    fresh = _best(grey, excess, sizes.shape[1], generator)
    if excess.explained(fresh) < BETTER * excess.explained(present):
        return None
    return _enlarged(fresh, sizes)


def _absolute(sizes: Tensor, mixes: SparseMixing) -> Tensor:
    """(m, C, H, W) absolute values of images, from the excess of x^2 in their encodings."""
    own, squares = SparseMixing(mixes.weights.square()), sizes.square()
    found = own.summed(squares - squares.mean(dim=0))
    found /= own.weights.square().sum(dim=0).clamp(min=1e-6)[:, None, None, None]
    return blur(found + 1, STAGES[-1][0]).clamp(min=0).sqrt()


def _excesses(sizes: Tensor, mixes: SparseMixing) -> tuple[_Excess, _Excess]:
    """The excess in gray at a quarter of the size, and in color at half of it."""
    squares = sizes.square()
    return _Excess(squares.mean(dim=1, keepdim=True), mixes, 4), _Excess(squares, mixes, 2)


def _best(grey: _Excess, excess: _Excess, channels: int, generator: torch.Generator) -> Tensor:
    """(m, C, h, w) the start that explains most at half the size, among the best gray starts."""
    starts = sorted((grey.settled(generator) for _ in range(STARTS)), key=grey.explained)
    finalists = (excess.coloured(start, channels) for start in starts[-FINALISTS:])
    return max(finalists, key=excess.explained)


def _enlarged(images: Tensor, sizes: Tensor) -> Tensor:
    """``images`` with synchronized signs, at the size of encodings."""
    side = (sizes.shape[2], sizes.shape[3])
    return SPREAD * F.interpolate(synchronize_signs(images), side, mode="bilinear")


class _Excess:
    """The excess of x^2 over its mean in each encoding, average-pooled over blocks of pixels.

    Images are smooth at this stage, so that pooling loses nothing.

    Args:
        squares: (n, C, H, W) x^2.
        mixes: coefficients of the images in the encodings.
        pool: side of a block in pixels.
    """

    def __init__(self, squares: Tensor, mixes: SparseMixing, pool: int) -> None:
        self.mixes, self.shrunk = mixes, squares.shape[2] / SIDE / pool
        self.side = [-(-side // pool) for side in squares.shape[2:]]
        energy = squares.mean(dim=(1, 2, 3))[:, None]
        excess = F.adaptive_avg_pool2d(squares, (self.side[0], self.side[1])).flatten(1) / energy
        self.excess = (excess - excess.mean(dim=0)) / energy
        # The energy of an image itself has no information on relative signs, and would dominate.
        self.own = SparseMixing(mixes.weights.square()).summed(self.excess)
        self.solve = mixes.ridge(energy[:, 0])

    def step(self, images: Tensor, sigma: float, colour: float) -> Tensor:
        """One step of power iteration; every pixel is normalized to the same energy over images."""
        sigma *= self.shrunk
        flat = self._applied(desaturate(blur(images, sigma), colour).flatten(1))
        images = desaturate(blur((self.solve @ flat).reshape(images.shape), sigma), colour)
        images = images / images.square().mean(dim=0).sqrt().clamp(min=1e-6)
        return blur(images, sigma / 2)

    def settled(self, generator: torch.Generator) -> Tensor:
        """(m, 1, h, w) gray images from a random start."""
        images = torch.randn((len(self.own), 1, *self.side), generator=generator).to(self.own)
        for _ in range(COARSE[1]):
            images = self.step(images, COARSE[0], 1.0)
        return images

    def coloured(self, images: Tensor, channels: int) -> Tensor:
        """(m, channels, h, w) color images from smaller gray ``images``, after all `STAGES`."""
        images = F.interpolate(images, self.side, mode="bilinear").expand(-1, channels, -1, -1)
        for sigma, colour, iterations in STAGES:
            for _ in range(iterations):
                images = self.step(images, sigma, colour)
        return images

    def explained(self, images: Tensor) -> float:
        """The part of the excess that ``images`` explain, independent of their scale."""
        flat = images.flatten(1)
        return float((flat * self._applied(flat)).sum() / flat.square().sum())

    def _applied(self, flat: Tensor) -> Tensor:
        total = -self.own * flat
        for part in self.mixes.parts:
            total += part.summed(part.mixed(flat).mul_(self.excess[part.rows]))
        return total

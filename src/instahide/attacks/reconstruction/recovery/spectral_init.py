"""A first guess at the private images, coarse to fine: which of them are of one sign where.

From a random start the signs of phase retrieval settle in patches, each right by itself. Power
iteration on x^2 finds relative signs of all images at once: the expectation of x^2 holds
2 lambda_i lambda_j x_i x_j for each pair in a mix. It can settle in patches too, but at a quarter
of the resolution many starts cost little, and those in patches explain less. The best of them go on
at half the resolution, in colour, where the difference is plain.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.pair_encoder.filters import blur, desaturate
from instahide.attacks.reconstruction.recovery.sign_sync import synchronize_signs
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing

#: Blur in pixels of an image of 32, and iterations, of the grey start at a quarter of the size.
COARSE = (6.0, 25)
STARTS, FINALISTS = 64, 12
#: A new start takes the place of images if it explains so many times as much.
BETTER = 1.05
#: Blur, share of colour, and iterations at half the size.
STAGES = ((4.0, 0.1, 15), (3.0, 0.2, 12), (2.0, 0.4, 12))
SIDE = 32
#: Deviation of the images that are handed back: less than it will be, as long as they are smooth.
SPREAD = 1.2


def power_iteration(sizes: Tensor, mixes: SparseMixing, generator: torch.Generator) -> Tensor:
    """(m, C, H, W) smooth images, right but for scale and a sign.

    Images that are alone in their mixes have no other to be compared with: they come as absolute
    values.

    Args:
        sizes: (n, C, H, W) `magnitudes`.
        mixes: which images are in which encodings.
        generator: of the random starts.
    """
    if mixes.alone:
        return _absolute(sizes, mixes)
    grey, excess = _excesses(sizes, mixes)
    return _enlarged(_best(grey, excess, sizes.shape[1], generator), sizes)


def better_start(
    sizes: Tensor, mixes: SparseMixing, images: Tensor, generator: torch.Generator
) -> Tensor | None:
    """What `power_iteration` gives, if it explains more than ``images``; None if it does not.

    Weights that were wrong in part can lead all starts into patches, and images out of these stay
    in them, however right the weights have become. Under the new weights such images explain
    clearly less than a new start, when both are taken through the same stages.

    Args:
        sizes: (n, C, H, W) `magnitudes`.
        mixes: which images are in which encodings.
        images: (m, C, H, W) as they are believed to be.
        generator: of the random starts.
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
    """(m, C, H, W) absolute values of images, by what x^2 is above its mean where they are."""
    own, squares = SparseMixing(mixes.weights.square()), sizes.square()
    found = own.summed(squares - squares.mean(dim=0))
    found /= own.weights.square().sum(dim=0).clamp(min=1e-6)[:, None, None, None]
    return blur(found + 1, STAGES[-1][0]).clamp(min=0).sqrt()


def _excesses(sizes: Tensor, mixes: SparseMixing) -> tuple[_Excess, _Excess]:
    """Grey, at a quarter of the size; in colour, at half of it."""
    squares = sizes.square()
    return _Excess(squares.mean(dim=1, keepdim=True), mixes, 4), _Excess(squares, mixes, 2)


def _best(grey: _Excess, excess: _Excess, channels: int, generator: torch.Generator) -> Tensor:
    """(m, C, h, w) the start that explains most at half the size, of those that do before."""
    starts = sorted((grey.settled(generator) for _ in range(STARTS)), key=grey.explained)
    finalists = (excess.coloured(start, channels) for start in starts[-FINALISTS:])
    return max(finalists, key=excess.explained)


def _enlarged(images: Tensor, sizes: Tensor) -> Tensor:
    """``images`` with the signs of pixels set right, at the size of encodings."""
    side = (sizes.shape[2], sizes.shape[3])
    return SPREAD * F.interpolate(synchronize_signs(images), side, mode="bilinear")


class _Excess:
    """What x^2 has more than on average in each encoding, pooled over squares of pixels.

    Images are smooth here, so that pooling loses nothing.

    Args:
        squares: (n, C, H, W) x^2.
        mixes: which images are in which encodings.
        pool: side of the squares.
    """

    def __init__(self, squares: Tensor, mixes: SparseMixing, pool: int) -> None:
        self.mixes, self.shrunk = mixes, squares.shape[2] / SIDE / pool
        self.side = [-(-side // pool) for side in squares.shape[2:]]
        energy = squares.mean(dim=(1, 2, 3))[:, None]
        excess = F.adaptive_avg_pool2d(squares, (self.side[0], self.side[1])).flatten(1) / energy
        self.excess = (excess - excess.mean(dim=0)) / energy
        # An image's own energy says nothing of relative signs, and would drown what does.
        self.own = SparseMixing(mixes.weights.square()).summed(self.excess)
        self.solve = mixes.ridge(energy[:, 0])

    def step(self, images: Tensor, sigma: float, colour: float) -> Tensor:
        """One step of power iteration, every pixel brought to the same energy over all images."""
        sigma *= self.shrunk
        flat = self._applied(desaturate(blur(images, sigma), colour).flatten(1))
        images = desaturate(blur((self.solve @ flat).reshape(images.shape), sigma), colour)
        images = images / images.square().mean(dim=0).sqrt().clamp(min=1e-6)
        return blur(images, sigma / 2)

    def settled(self, generator: torch.Generator) -> Tensor:
        """(m, 1, h, w) grey images from a random start."""
        images = torch.randn((len(self.own), 1, *self.side), generator=generator).to(self.own)
        for _ in range(COARSE[1]):
            images = self.step(images, COARSE[0], 1.0)
        return images

    def coloured(self, images: Tensor, channels: int) -> Tensor:
        """(m, channels, h, w) from smaller grey ``images``, in the stages of `STAGES`."""
        images = F.interpolate(images, self.side, mode="bilinear").expand(-1, channels, -1, -1)
        for sigma, colour, iterations in STAGES:
            for _ in range(iterations):
                images = self.step(images, sigma, colour)
        return images

    def explained(self, images: Tensor) -> float:
        """How much of the excess goes with ``images``, whatever their scale."""
        flat = images.flatten(1)
        return float((flat * self._applied(flat)).sum() / flat.square().sum())

    def _applied(self, flat: Tensor) -> Tensor:
        total = -self.own * flat
        for part in self.mixes.parts:
            total += part.summed(part.mixed(flat).mul_(self.excess[part.rows]))
        return total

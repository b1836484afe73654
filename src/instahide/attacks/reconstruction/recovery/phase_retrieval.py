"""Phase retrieval: private images from |sum of lambda_j x_j|, by expectation-maximisation.

Every value of an encoding is a linear measurement whose sign is lost. The E-step computes the
expected signs for the current images. The M-step is one ridge regression for all pixels, because
the weights are the same for every pixel. The contribution of public images is treated as noise. It
is smooth noise, so it is predicted from the neighbors of each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from instahide.attacks.base import require
from instahide.attacks.reconstruction.pair_encoder.filters import blur, desaturate, from_neighbours
from instahide.attacks.reconstruction.recovery.sign_sync import synchronize_signs
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.attacks.reconstruction.recovery.spectral_init import better_start, power_iteration

#: Stages with white noise: blur of the images in pixels, fraction of their color, and iterations.
ANNEALING: tuple[tuple[float, float, int], ...] = (
    (2.0, 0.5, 4),
    (1.5, 0.8, 5),
    (1.2, 0.9, 5),
    (0.8, 1.0, 5),
    (0.6, 1.0, 5),
    (0.45, 1.0, 6),
)
#: Index of the first stage of `ANNEALING` for images that are nearly right.
WARM = 2
#: Blur for the average of neighbors, and blur of the images in the smooth-noise iterations.
NEIGHBOURS, LAST_BLUR = 0.8, 0.3
#: Lower bounds of the noise variance relative to an encoding's energy: of white noise, and of the
#: noise that remains after the prediction from neighbors.
LEAST_WHITE, LEAST_NOISE = 0.3, 0.05


def recover(
    sizes: Tensor,
    weights: Tensor,
    *,
    generator: torch.Generator,
    start: Tensor | None = None,
    iterations: int = 8,
) -> Tensor:
    """Recover the private images (m, C, H, W).

    Args:
        sizes: (n, C, H, W) `magnitudes` of the encodings.
        weights: (n, m) coefficient of each image in each encoding, 0 where it is not.
        generator: generator of the random starts.
        start: images that are nearly right; by default those of `power_iteration`. They are
            replaced by `better_start` if that explains the encodings better.
        iterations: number of final iterations with smooth noise.
    """
    mixes = SparseMixing(weights)
    fresh = (
        power_iteration(sizes, mixes, generator)
        if start is None
        else better_start(sizes, mixes, start, generator)
    )
    begun, stages = (start, ANNEALING[WARM:]) if fresh is None else (fresh, ANNEALING)
    return refine(sizes, mixes, anneal(sizes, mixes, require(begun), stages), iterations)


def anneal(
    sizes: Tensor, mixes: SparseMixing, images: Tensor, stages: tuple[tuple[float, float, int], ...]
) -> Tensor:
    """Images (m, C, H, W) after EM with white noise and decreasing blur."""
    noise = 0.7 * _energy(sizes)
    for sigma, share, iterations in stages:
        ridge = mixes.ridge(noise)
        for _ in range(iterations):
            sums = _expected_sums(sizes, mixes, images, noise)
            images = desaturate(blur(_combined(ridge, sums), sigma), share)
        images = synchronize_signs(images)
        noise = _white(sizes, mixes, images)
    return images


def _expected_sums(sizes: Tensor, mixes: SparseMixing, images: Tensor, noise: Tensor) -> Tensor:
    """(m, C, H, W) sums of the `expected` encodings for ``images``, divided by the noise."""
    total = torch.zeros_like(images)
    for part in mixes.parts:
        own = noise[part.rows]
        signed = expected(sizes[part.rows], part.mixed(images), own)
        total += part.summed(signed.div_(own[:, None, None, None]))
    return total


def expected(sizes: Tensor, guess: Tensor, noise: Tensor) -> Tensor:
    """(n, C, H, W) expectation of s |x| over the sign s, for mean ``guess`` and variance ``noise``.

    The channels of a pixel could be treated jointly, because public images add nearly the same to
    all three. That needs eight combinations of signs instead of two, and gained 0.002 of SSIM.
    """
    return sizes * (sizes * guess / noise.reshape(-1, 1, 1, 1)).tanh()


@dataclass(frozen=True, eq=False)
class Residue:
    """The contribution of public images to each encoding, predicted from neighboring pixels.

    Attributes:
        guess: (n, C, H, W) predicted contribution.
        noise: (n,) variance of the prediction error.
    """

    guess: Tensor
    noise: Tensor

    @classmethod
    def unknown(cls, sizes: Tensor) -> Residue:
        """The initial residue of encodings ``sizes`` (n, C, H, W): a prediction of 0."""
        return cls(torch.zeros_like(sizes), 0.7 * _energy(sizes))

    def after(self, sizes: Tensor, signed: Tensor, mixed: Tensor) -> Residue:
        """The mean of this residue and one predicted from ``signed`` - ``mixed`` (n, C, H, W)."""
        difference = signed - mixed
        around = from_neighbours(difference, NEIGHBOURS)
        share = (difference * around).sum() / around.square().sum().clamp(min=1e-12)
        guess = 0.5 * self.guess + 0.5 * share.clamp(0, 0.98) * around
        unsure = sizes.square() - signed.square()
        noise = ((difference - guess).square() + unsure).mean(dim=(1, 2, 3))
        noise = (0.5 * self.noise + 0.5 * noise).maximum(LEAST_NOISE * _energy(sizes))
        return Residue(guess, noise)


def refine(sizes: Tensor, mixes: SparseMixing, images: Tensor, iterations: int) -> Tensor:
    """Images (m, C, H, W) after EM that also estimates the `Residue` of every encoding."""
    residue = Residue(torch.zeros_like(sizes), _white(sizes, mixes, images))
    for _ in range(iterations):
        mixed = mixes.mixed(images)
        signed = expected(sizes, mixed + residue.guess, residue.noise)
        residue = residue.after(sizes, signed, mixed)
        sums = mixes.summed((signed - residue.guess) / residue.noise[:, None, None, None])
        images = blur(_combined(mixes.ridge(residue.noise), sums), LAST_BLUR)
    return images


def _energy(sizes: Tensor) -> Tensor:
    """(n,) mean square of each encoding."""
    return sizes.square().mean(dim=(1, 2, 3))


def _white(sizes: Tensor, mixes: SparseMixing, images: Tensor) -> Tensor:
    """(n,) energy of each encoding that ``images`` do not explain."""
    left = [_energy(sizes[part.rows]) - _energy(part.mixed(images)) for part in mixes.parts]
    return torch.cat(left).maximum(LEAST_WHITE * _energy(sizes))


def _combined(matrix: Tensor, images: Tensor) -> Tensor:
    """(m, C, H, W) product of ``matrix`` (m, m) and ``images`` (m, C, H, W)."""
    return (matrix @ images.flatten(1)).reshape(images.shape)

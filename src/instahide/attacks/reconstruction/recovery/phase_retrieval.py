"""Phase retrieval: private images from |sum of lambda_j x_j|, by expectation-maximisation.

Every value of an encoding is one linear measurement whose sign is lost. The E-step weighs the
signs under the present images; the M-step is one ridge regression for all pixels at once, since
the weights are the same for every pixel. What the public images add is noise, but smooth noise: it
is predicted from the neighbours of each pixel.
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

#: Blur of the images in pixels, share of their colour, and iterations, for noise taken as white.
ANNEALING: tuple[tuple[float, float, int], ...] = (
    (2.0, 0.5, 4),
    (1.5, 0.8, 5),
    (1.2, 0.9, 5),
    (0.8, 1.0, 5),
    (0.6, 1.0, 5),
    (0.45, 1.0, 6),
)
#: Those of `ANNEALING` that images which are nearly right go through.
WARM = 2
#: Blur that neighbours are averaged under, and that images get in the end.
NEIGHBOURS, LAST_BLUR = 0.8, 0.3
#: The noise is at least this share of an encoding's energy: white, and besides its neighbours.
LEAST_WHITE, LEAST_NOISE = 0.3, 0.05


def recover(
    sizes: Tensor,
    weights: Tensor,
    *,
    generator: torch.Generator,
    start: Tensor | None = None,
    iterations: int = 8,
) -> Tensor:
    """(m, C, H, W) the private images.

    Args:
        sizes: (n, C, H, W) `magnitudes` of the encodings.
        weights: (n, m) coefficient of each image in each encoding, 0 where it is not.
        generator: of random starts.
        start: images that are nearly right; by default from `power_iteration`. If they turn out to
            be in patches, `better_start` takes their place.
        iterations: under smooth noise, at the end.
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
    """Images (m, C, H, W) after EM with white noise, under less and less blur."""
    noise = 0.7 * _energy(sizes)
    for sigma, share, iterations in stages:
        ridge = mixes.ridge(noise)
        for _ in range(iterations):
            seen = _seen(sizes, mixes, images, noise)
            images = desaturate(blur(_combined(ridge, seen), sigma), share)
        images = synchronize_signs(images)
        noise = _white(sizes, mixes, images)
    return images


def _seen(sizes: Tensor, mixes: SparseMixing, images: Tensor, noise: Tensor) -> Tensor:
    """(m, C, H, W) sums of what is `expected` of encodings under ``images``, over the noise."""
    total = torch.zeros_like(images)
    for part in mixes.parts:
        own = noise[part.rows]
        signed = expected(sizes[part.rows], part.mixed(images), own)
        total += part.summed(signed.div_(own[:, None, None, None]))
    return total


def expected(sizes: Tensor, guess: Tensor, noise: Tensor) -> Tensor:
    """(n, C, H, W) E[s |x|] over its sign s, spread about ``guess`` with ``noise`` (n,).

    The channels of a pixel could be weighed together, since public images add nearly the same to
    all three; that takes eight combinations of signs instead of two, and gained 0.002 of SSIM.
    """
    return sizes * (sizes * guess / noise.reshape(-1, 1, 1, 1)).tanh()


@dataclass(frozen=True, eq=False)
class Residue:
    """What the public images add to each encoding, as far as its neighbours foretell it.

    Attributes:
        guess: (n, C, H, W).
        noise: (n,) variance of what the guess leaves.
    """

    guess: Tensor
    noise: Tensor

    @classmethod
    def unknown(cls, sizes: Tensor) -> Residue:
        """All noise, before anything is guessed of encodings ``sizes`` (n, C, H, W)."""
        return cls(torch.zeros_like(sizes), 0.7 * _energy(sizes))

    def after(self, sizes: Tensor, signed: Tensor, mixed: Tensor) -> Residue:
        """Halfway to what ``signed`` (n, C, H, W) leaves of ``mixed``, smoothed by neighbours."""
        seen = signed - mixed
        around = from_neighbours(seen, NEIGHBOURS)
        share = ((seen * around).sum() / around.square().sum().clamp(min=1e-12)).clamp(0, 0.98)
        guess = 0.5 * self.guess + 0.5 * share * around
        unsure = sizes.square() - signed.square()
        noise = ((seen - guess).square() + unsure).mean(dim=(1, 2, 3))
        noise = (0.5 * self.noise + 0.5 * noise).maximum(LEAST_NOISE * _energy(sizes))
        return Residue(guess, noise)


def refine(sizes: Tensor, mixes: SparseMixing, images: Tensor, iterations: int) -> Tensor:
    """Images (m, C, H, W) after EM with the `Residue` of every encoding guessed as well."""
    residue = Residue(torch.zeros_like(sizes), _white(sizes, mixes, images))
    for _ in range(iterations):
        mixed = mixes.mixed(images)
        signed = expected(sizes, mixed + residue.guess, residue.noise)
        residue = residue.after(sizes, signed, mixed)
        seen = mixes.summed((signed - residue.guess) / residue.noise[:, None, None, None])
        images = blur(_combined(mixes.ridge(residue.noise), seen), LAST_BLUR)
    return images


def _energy(sizes: Tensor) -> Tensor:
    """(n,) mean square of each encoding."""
    return sizes.square().mean(dim=(1, 2, 3))


def _white(sizes: Tensor, mixes: SparseMixing, images: Tensor) -> Tensor:
    """(n,) variance that ``images`` leave of each encoding."""
    left = [_energy(sizes[part.rows]) - _energy(part.mixed(images)) for part in mixes.parts]
    return torch.cat(left).maximum(LEAST_WHITE * _energy(sizes))


def _combined(matrix: Tensor, images: Tensor) -> Tensor:
    """(m, m) by (m, C, H, W): (m, C, H, W)."""
    return (matrix @ images.flatten(1)).reshape(images.shape)

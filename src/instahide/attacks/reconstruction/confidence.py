"""Which recovered images are right, told without the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.pair_encoder.filters import blur
from instahide.attacks.reconstruction.recovery.phase_retrieval import recover
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing

#: Iterations under smooth noise: fewer than for images that are handed back.
ITERATIONS = 3
#: Deviation of the windows that structures are compared under, in pixels, and the mean squares,
#: of images of mean square 1, from which on a difference counts: those of SSIM (Wang et al. 2004)
#: where values run over four deviations.
WINDOW, FAINT_MEAN, FAINT_SPREAD = 1.5, (0.01 * 4) ** 2, (0.03 * 4) ** 2


def agreement(sizes: Tensor, weights: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
    """(m,) the least likeness of ``images`` and what either half of the encodings gives.

    Each half has a start of its own. What is in the encodings comes back in all three. What was
    fitted to noise does not, nor do signs that settled in patches: each start would settle
    otherwise. Images that are alone in their mixes get 0: their signs are guessed from smoothness
    alone, in every start alike, and no encoding tells whether rightly.

    Args:
        sizes: (n, C, H, W) `magnitudes` of encodings in random order.
        weights: (n, m) coefficient of each image in each encoding.
        images: (m, C, H, W) recovered from all encodings.
        generator: of the two starts.
    """
    if SparseMixing(weights).alone:
        return torch.zeros(len(images)).to(images)
    first, second = (
        recover(sizes[half], weights[half], generator=generator, iterations=ITERATIONS)
        for half in (slice(0, None, 2), slice(1, None, 2))
    )
    pairs = (likeness(first, second), likeness(first, images), likeness(second, images))
    return torch.stack(pairs).amin(dim=0)


def likeness(first: Tensor, second: Tensor) -> Tensor:
    """(m,) from 0 to 1: how like each of ``first`` (m, C, H, W) is to its like in ``second``.

    The lesser of two likenesses, neither of which brightness, contrast or sign changes: of the
    whole images, and of their `structure`. Two images that are both wrong may have the same dark
    half, but not the same edges.
    """
    one, other = _standardised(first), _standardised(second)
    overall = (one * other).flatten(1).mean(dim=1)
    turned = one * torch.where(overall < 0, -1.0, 1.0)[:, None, None, None]
    return overall.abs().minimum(structure(turned, other))


def structure(first: Tensor, second: Tensor) -> Tensor:
    """(m,) root of the mean SSIM of each image (m, C, H, W) of mean square 1 with its like.

    Each is the original with errors of its own, so that their likeness is the product of what
    both have to the original, or the square of what one has.
    """
    mean, others_mean = blur(first, WINDOW), blur(second, WINDOW)
    together = blur(first * second, WINDOW) - mean * others_mean
    spread = blur(first.square() + second.square(), WINDOW) - mean.square() - others_mean.square()
    brightness = (2 * mean * others_mean + FAINT_MEAN) / (
        mean.square() + others_mean.square() + FAINT_MEAN
    )
    alike = brightness * (2 * together + FAINT_SPREAD) / (spread + FAINT_SPREAD)
    return alike.flatten(1).mean(dim=1).clamp(min=0).sqrt()


def _standardised(images: Tensor) -> Tensor:
    """(m, C, H, W) every channel of mean 0, every image of mean square 1 unless it is all flat."""
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    energy = centred.square().mean(dim=(1, 2, 3), keepdim=True)
    return centred / energy.sqrt().clamp(min=1e-6)

"""Confidence in recovered images, estimated without the original images."""

from __future__ import annotations

import torch
from torch import Tensor

from instahide.attacks.reconstruction.pair_encoder.filters import blur
from instahide.attacks.reconstruction.recovery.phase_retrieval import recover
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing

#: Iterations with smooth noise, fewer than for the final images.
ITERATIONS = 3
#: Standard deviation of the SSIM window in pixels, and SSIM's two constants (Wang et al. 2004) for
#: images of mean square 1 whose values span four standard deviations.
WINDOW, FAINT_MEAN, FAINT_SPREAD = 1.5, (0.01 * 4) ** 2, (0.03 * 4) ** 2


def agreement(sizes: Tensor, weights: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
    """(m,) smallest similarity among ``images`` and the recoveries from both halves of the data.

    The two halves have different random starts. An image that is in the encodings appears in all
    three recoveries. An image that was fitted to noise does not, and neither do signs that are
    right only in patches, because the patches depend on the start. Images that are alone in their
    mixes get 0: their signs are estimated from smoothness alone, in the same way for every start,
    and no encoding shows whether they are right.

    Args:
        sizes: (n, C, H, W) `magnitudes` of encodings in random order.
        weights: (n, m) coefficient of each image in each encoding.
        images: (m, C, H, W) images recovered from all encodings.
        generator: generator of the two random starts.
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
    """(m,) similarity, from 0 to 1, of each of ``first`` (m, C, H, W) to its match in ``second``.

    It is the smaller of two similarities: the correlation of the whole images, and that of their
    `structure`. Neither depends on brightness, contrast or sign. Two wrong images may have the same
    dark half, but not the same edges.
    """
    one, other = _standardised(first), _standardised(second)
    overall = (one * other).flatten(1).mean(dim=1)
    aligned = one * torch.where(overall < 0, -1.0, 1.0)[:, None, None, None]
    return overall.abs().minimum(structure(aligned, other))


def structure(first: Tensor, second: Tensor) -> Tensor:
    """(m,) square roots of the mean SSIM of image pairs (m, C, H, W) of mean square 1.

    Both images are the original with independent errors, so that their similarity is the product of
    their similarities to the original. The square root is the similarity of one of them.
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
    """(m, C, H, W) with channels of mean 0 and images of mean square 1, unless constant."""
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    energy = centred.square().mean(dim=(1, 2, 3), keepdim=True)
    return centred / energy.sqrt().clamp(min=1e-6)

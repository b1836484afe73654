"""Confidence in recovered images, estimated without the original images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instahide.attacks.reconstruction.pair_encoder.filters import blur
from instahide.attacks.reconstruction.recovery.phase_retrieval import (
    SignedEncodings,
    recover,
    refine,
)
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing

#: Logistic regression of "SSIM above 0.5" on the three similarities of `confidence`, in this order;
#: on the first one, times the logarithm of the number of encodings of an image, since similar
#: halves mean more if there are more encodings in them; and its intercept. Fitted to the tuning
#: victims at 1 to `MOST_COPIES` encodings and to encodings of noise; the intercept is lower than
#: the fitted one, so that of the tuning images that are called recovered about 95% are.
WEIGHTS, TIMES_COPIES, INTERCEPT = (4.9, 2.2, 2.0), 1.6, -2.8
MOST_COPIES = 20
#: Standard deviation of the SSIM window in pixels, and SSIM's two constants (Wang et al. 2004) for
#: images of mean square 1 whose values span four standard deviations.
WINDOW, FAINT_MEAN, FAINT_SPREAD = 1.5, (0.01 * 4) ** 2, (0.03 * 4) ** 2


def confidence(
    encodings: SignedEncodings, mixes: SparseMixing, images: Tensor, generator: torch.Generator
) -> Tensor:
    """(m,) estimated probability that each image has an SSIM above 0.5.

    Each half of the encodings gives the images twice: from its own start, and from ``images``. An
    image that is in the encodings appears in both halves; one that was fitted to noise does not.
    Three similarities count: of the halves with their own starts, of the halves that start from
    ``images``, and of the first two with ``images``. So does the number of encodings.

    Args:
        encodings: the encodings, in random order.
        mixes: coefficients of the images in the encodings.
        images: (m, C, H, W) images recovered from all encodings.
        generator: generator of the random starts.
    """
    halves = (slice(0, None, 2), slice(1, None, 2))
    own = [recover(encodings[half], mixes[half], generator=generator).images for half in halves]
    from_all = [refine(encodings[half], mixes[half], images).images for half in halves]
    similarities = [
        likeness(*own),
        likeness(*from_all),
        (likeness(own[0], images) + likeness(own[1], images)) / 2,
    ]
    evidence = torch.stack(similarities, dim=1) @ torch.tensor(WEIGHTS).to(images) + INTERCEPT
    copies = min(max(1.0, len(encodings.sizes) / len(images)), MOST_COPIES)
    return (evidence + TIMES_COPIES * math.log(copies) * similarities[0]).sigmoid()


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

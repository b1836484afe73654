"""Metrics between reconstructions and originals: pure functions of batches of images.

Images are (m, C, H, W), volumes (m, C, D, H, W), with values from 0 to 1. The data range is 1 for
every image, whatever range the values have. Each function returns one value per image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instahide.errors import DataError

#: Values run from 0 to 1.
RANGE = 1.0
#: Side and standard deviation of the Gaussian window (Wang, Bovik, Sheikh and Simoncelli, 2004).
WINDOW, SIGMA = 11, 1.5


def mse(found: Tensor, original: Tensor) -> Tensor:
    """(m,) mean squared difference."""
    return (found - original).square().flatten(1).mean(dim=1)


def psnr(found: Tensor, original: Tensor) -> Tensor:
    """(m,) peak signal-to-noise ratio in dB; infinite for equal images."""
    return 10 * torch.log10(RANGE**2 / mse(found, original))


def ssim(found: Tensor, original: Tensor) -> Tensor:
    """(m,) structural similarity, 1 for equal images, over windows inside the image.

    For images with fewer than 11 pixels per side, a smaller window is used. The windows of volumes
    are cubes.

    Raises:
        DataError: a side has fewer than 3 pixels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    radius, deviation = window(found.shape[2:])
    _, everywhere = structural_similarity_index_measure(
        found,
        original,
        sigma=deviation,
        # Of volumes, it is the padding along the last axis.
        kernel_size=2 * radius + 1,
        data_range=RANGE,
        reduction="none",
        return_full_image=True,
    )
    inside = torch.as_tensor(everywhere)
    for axis in range(2, found.ndim):
        inside = inside.narrow(axis, radius, inside.shape[axis] - 2 * radius)
    return inside.flatten(1).mean(dim=1)


def window(size: Sequence[int]) -> tuple[int, float]:
    """Radius and standard deviation of the window for images of ``size`` (H, W) or (D, H, W).

    Raises:
        DataError: a side has fewer than 3 pixels.
    """
    radius = (min(WINDOW, *size) - 1) // 2
    if radius < 1:
        raise DataError(
            f"Images of {' x '.join(map(str, size))} pixels are too small to be compared.",
            "Use images of at least 3 pixels a side.",
        )
    # torchmetrics uses a window of 3.5 standard deviations in each direction.
    return radius, SIGMA if 2 * radius + 1 == WINDOW else radius / 3.5


def best_affine(found: Tensor, original: Tensor) -> Tensor:
    """``found`` after the affine map of each channel, sign included, with the least squared error.

    An attacker who has an image up to brightness, contrast and sign has the image. A constant
    channel becomes the original's mean, the best guess without information.
    """
    x, y = found.flatten(2).double(), original.flatten(2).double()
    x_mean, y_mean = x.mean(dim=2, keepdim=True), y.mean(dim=2, keepdim=True)
    spread = (x - x_mean).square().sum(dim=2, keepdim=True)
    together = ((x - x_mean) * (y - y_mean)).sum(dim=2, keepdim=True)
    gain = torch.where(spread > 0, together / spread.clamp(min=1e-30), 0)
    mapped = (gain * (x - x_mean) + y_mean).clamp(0, RANGE)
    return mapped.to(found.dtype).reshape(found.shape)


def best_rendering(renderings: Sequence[Tensor], original: Tensor) -> tuple[Tensor, Tensor]:
    """For each image, the one of its ``renderings`` with the highest SSIM; (m,) that SSIM.

    An affine map with the least squared error can lower the SSIM: if a part of the image has the
    wrong sign, it makes the image flat. Therefore the values of an image are also compared as they
    are.

    Args:
        renderings: (m, C, H, W) each, the same m images in several ways.
        original: (m, C, H, W).
    """
    values, best = torch.stack([ssim(images, original) for images in renderings]).max(dim=0)
    return torch.stack(list(renderings))[best, torch.arange(len(original))], values


def nearest(found: Tensor, candidates: Tensor) -> Tensor:
    """(m,) int64: the most similar row of ``candidates`` (N, C, H, W) for each image."""
    return likeness(found, candidates).argmax(dim=1)


def likeness(found: Tensor, candidates: Tensor) -> Tensor:
    """(m, N) absolute correlation over all values of found images and ``candidates`` (N, C, H, W).

    It does not depend on brightness, contrast or sign.
    """
    return (_standardised(found) @ _standardised(candidates).T).abs()


def likeness_of_pairs(found: Tensor, originals: Tensor) -> Tensor:
    """(m,) absolute correlation over all values of each found image and its original."""
    return (_standardised(found) * _standardised(originals)).sum(dim=1).abs().float()


def _standardised(images: Tensor) -> Tensor:
    """(n, D) rows with mean 0 and length 1."""
    flat = images.flatten(1).double()
    flat = flat - flat.mean(dim=1, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return flat / lengths.clamp(min=1e-30)

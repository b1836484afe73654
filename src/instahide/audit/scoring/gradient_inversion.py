"""Scores of images recovered from an update, against its encodings and private images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from instahide.attacks.base import InvertedUpdate
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics
from instahide.utils.optional_deps import requires_extra

#: Largest PSNR that is reported.
MOST_DECIBELS = 120.0
#: An encoding counts as recovered from an update if its PSNR, in dB, is at least this,
INVERTED = 25.0
#: and exceeds the PSNR of the best blank picture by this: its squared error is half as large.
ABOVE_BLANK = 3.0


def match_order(found: InvertedUpdate, encodings: Tensor) -> InvertedUpdate:
    """``found`` with its images in the order of the nearest ``encodings``, one image for each.

    An update is a mean over its images and does not determine their order. Recovered labels are
    reordered with their images.

    Raises:
        InstaHideError: SciPy is missing.
    """
    with requires_extra("SciPy", "audit"):
        from scipy.optimize import linear_sum_assignment
    apart = torch.cdist(encodings.flatten(1).double(), found.images.flatten(1).double())
    order = torch.from_numpy(linear_sum_assignment(apart.square().numpy())[1])
    labels = found.class_coefficients
    return replace(
        found,
        images=found.images[order],
        class_coefficients=None if labels is None else labels[order],
    )


def score_against_encodings(
    found: Tensor, truth: GroundTruth, std: tuple[float, ...]
) -> dict[str, Tensor]:
    """Figures of each recovered image (n, C, H, W), by metric; images are ordered by `match_order`.

    ``encoding_mse``, ``encoding_psnr`` and ``encoding_ssim`` compare with the encoding used in
    training, without any fit, in units in which pixels run from 0 to 1. ``of_nothing_psnr`` is the
    PSNR of zeros, which is higher for a mix with little contrast than for a plain image, and
    ``of_blank_psnr`` that of the best blank picture, the mean color. ``absolute_ssim`` compares
    absolute values with those of the private image, after the best affine map.
    """
    encodings = torch.as_tensor(truth.encodings)
    axes = tuple(range(1, encodings.ndim))
    scale = torch.tensor(std).reshape(-1, *(1,) * len(axes[1:]))
    private = truth.images[truth.partners[:, 0]].abs()
    private = private / private.amax(dim=axes, keepdim=True).clamp(min=1e-12)
    guess, original = found * scale, encodings * scale
    blank = original.mean(dim=axes[1:], keepdim=True).expand_as(original)
    return {
        "encoding_mse": metrics.mse(guess, original),
        # Single precision resolves no larger values; infinity would not be a number in JSON.
        "encoding_psnr": metrics.psnr(guess, original).clamp(max=MOST_DECIBELS),
        "encoding_ssim": metrics.ssim(guess, original),
        "of_nothing_psnr": metrics.psnr(torch.zeros_like(original), original),
        "of_blank_psnr": metrics.psnr(blank, original).clamp(max=MOST_DECIBELS),
        "absolute_ssim": metrics.ssim(metrics.best_affine(found.abs(), private), private),
    }


def counts_as_inverted(psnr: Tensor, blank: Tensor) -> Tensor:
    """(m,) bool: a PSNR of at least `INVERTED` that exceeds the ``blank`` one by `ABOVE_BLANK`."""
    return (psnr >= INVERTED) & (psnr >= blank + ABOVE_BLANK)

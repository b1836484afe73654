"""What came out of an update, against the encodings behind it and the private images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from instahide.attacks.base import InvertedUpdate
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics
from instahide.utils.optional_deps import requires_extra

#: The highest ratio of signal to noise that is stated.
MOST_DECIBELS = 120.0


def match_order(found: InvertedUpdate, encodings: Tensor) -> InvertedUpdate:
    """``found`` with every image at the place of the one of ``encodings`` that it is nearest to.

    An update is a mean over its images and tells no order. No two are given the same place, and
    labels that were found go with their images.

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
    """One figure for each recovered image (n, C, H, W), by metric; the images are `in_order`.

    ``encoding_mse``, ``encoding_psnr`` and ``encoding_ssim`` are to the encoding as it was trained
    on, with nothing forgiven, in units in which pixels run from 0 to 1; ``of_nothing_psnr`` is what
    zeros get, which is more for a mix of little contrast than for a plain image, and
    ``of_blank_psnr`` what the blank picture of least error gets, the mean colour. ``absolute_ssim``
    is of absolute values to the private image's, under the best affine map: what is left when the
    signs are given up.
    """
    encodings = torch.as_tensor(truth.encodings)
    scale = torch.tensor(std)[:, None, None]
    private = truth.images[truth.partners[:, 0]].abs()
    private = private / private.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    guess, original = found * scale, encodings * scale
    blank = original.mean(dim=(2, 3), keepdim=True).expand_as(original)
    return {
        "encoding_mse": metrics.mse(guess, original),
        # Beyond this, single precision tells nothing apart; infinity would be no figure at all.
        "encoding_psnr": metrics.psnr(guess, original).clamp(max=MOST_DECIBELS),
        "encoding_ssim": metrics.ssim(guess, original),
        "of_nothing_psnr": metrics.psnr(torch.zeros_like(original), original),
        "of_blank_psnr": metrics.psnr(blank, original).clamp(max=MOST_DECIBELS),
        "absolute_ssim": metrics.ssim(metrics.best_affine(found.abs(), private), private),
    }

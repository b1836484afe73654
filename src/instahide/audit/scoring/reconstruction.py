"""Scores of recovered images and of their assignment to encodings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from instahide.attacks.base import AssignedImages
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics
from instahide.audit.scoring.blank_baseline import HALF, best_blank, counts_as_recovered
from instahide.audit.scoring.registration import registered
from instahide.utils.optional_deps import requires_extra

#: Mean and standard deviation of the normalization, each per channel.
Moments = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, eq=False, repr=False)
class ReconstructionScore:
    """The score of one reconstruction.

    Attributes:
        rows: (m,) int64 private image matched to each recovered one, all different.
        images: (m, C, H, W) recovered images, `registered` to these.
        shown: (m, C, H, W) recovered images from 0 to 1, in the better of their `renderings`.
        originals: (m, C, H, W) the matched private images, from 0 to 1.
        ssim: (m,) SSIM of both.
        mass: share of the private coefficients that were assigned to the right images.
    """

    rows: Tensor
    images: Tensor
    shown: Tensor
    originals: Tensor
    ssim: Tensor
    mass: float

    @property
    def recovered(self) -> Tensor:
        """(m,) bool, whether each image counts as recovered; see `counts_as_recovered`."""
        return counts_as_recovered(self.ssim, best_blank(self.originals))

    def figures(self) -> dict[str, float]:
        """Plain numbers.

        ``above_half`` counts by SSIM alone and therefore includes nearly constant images, whatever
        was found; ``recovered`` also requires more than the SSIM of the best blank picture.
        """
        return {
            "mass": self.mass,
            "ssim": float(self.ssim.mean()),
            "ssim_best": float(self.ssim.max()),
            "above_half": float((self.ssim > HALF).sum()),
            "recovered": float(self.recovered.sum()),
        }

    def summary(self, confidence: Tensor, least: float) -> dict[str, float]:
        """`figures`, and of claims: a ``confidence`` (m,) of at least ``least`` in an image."""
        claimed, right = confidence >= least, self.recovered
        return self.figures() | {
            "claimed": float(claimed.sum()),
            "claimed_rightly": float(right[claimed].float().mean()) if claimed.any() else 1.0,
        }


def score_reconstruction(
    found: AssignedImages, truth: GroundTruth, mean: tuple[float, ...], std: tuple[float, ...]
) -> ReconstructionScore:
    """Match recovered images to private ones by the encodings that contain them, and compare them.

    Args:
        found: recovered images, and their assignment to encodings.
        truth: ground truth of the same encodings.
        mean: mean of the normalization, to compute pixels from 0 to 1.
        std: standard deviation of the normalization.

    Raises:
        InstaHideError: SciPy is missing.
    """
    private = truth.partners[:, : truth.private_k]
    rows = _matching(found.assignment, private, len(found.images), len(truth.images))
    same = rows[found.assignment][:, :, None] == private[:, None, :]
    right = (same & (found.assignment >= 0)[:, :, None]).any(dim=1)
    weights = truth.coefficients[:, : truth.private_k]
    originals = to_pixels(truth.images[rows], mean, std)
    images = registered(found.images, truth.images[rows], truth)
    shown, ssim = metrics.best_rendering(renderings(images, originals, mean, std), originals)
    mass = float((weights * right).sum() / weights.sum())
    return ReconstructionScore(rows, images, shown, originals, ssim, mass)


def to_pixels(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalized ``images`` (m, C, H, W) as pixels, clipped to the range from 0 to 1."""
    places = (1,) * (images.ndim - 2)
    scale, shift = (torch.tensor(moment).reshape(-1, *places) for moment in (std, mean))
    return (images * scale + shift).clamp(0, 1)


def renderings(
    images: Tensor, originals: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> list[Tensor]:
    """Pixels of recovered images: after the best affine map, and as they are with either sign.

    Absolute values do not show the sign of an image.
    """
    raw = (to_pixels(sign * images, mean, std) for sign in (1, -1))
    return [metrics.best_affine(images, originals), *raw]


def _matching(members: Tensor, private: Tensor, images: int, originals: int) -> Tensor:
    """(m,) the private image that shares most encodings with each recovered one, all different."""
    with requires_extra("SciPy", "audit"):
        from scipy.optimize import linear_sum_assignment
    shared = torch.zeros(images, originals)
    for one in members.T:
        there = one >= 0
        for other in private.T:
            pairs = one[there], other[there]
            shared.index_put_(pairs, torch.ones(len(pairs[0])), accumulate=True)
    rows, columns = linear_sum_assignment(shared.numpy(), maximize=True)
    matched = torch.zeros(images, dtype=torch.int64)
    matched[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return matched

"""What recovered images and their assignment to encodings are worth, against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from instahide.attacks.base import AssignedImages
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics
from instahide.audit.scoring.blank_baseline import HALF, best_blank, counts_as_recovered
from instahide.utils.optional_deps import requires_extra


@dataclass(frozen=True, eq=False, repr=False)
class ReconstructionScore:
    """Figures of one reconstruction.

    Attributes:
        rows: (m,) int64 private image that each recovered one stands for, each for another.
        mapped: (m, C, H, W) recovered images from 0 to 1, under their best affine maps.
        originals: (m, C, H, W) those private images, from 0 to 1.
        ssim: (m,) likeness of the two.
        mass: share of the private coefficients that were assigned to the right images.
    """

    rows: Tensor
    mapped: Tensor
    originals: Tensor
    ssim: Tensor
    mass: float

    @property
    def recovered(self) -> Tensor:
        """(m,) bool, which images count as recovered: see `counts_as_recovered`."""
        return counts_as_recovered(self.ssim, best_blank(self.originals))

    def summary(self, confidence: Tensor, least: float) -> dict[str, float]:
        """Plain numbers; ``confidence`` (m,) of at least ``least`` claims that it is recovered.

        ``above_half`` counts by SSIM alone, so that nearly flat images are in it, whatever was
        found; ``recovered`` also asks for more than the best blank picture gets.
        """
        claimed = confidence >= least
        right = self.recovered
        return {
            "mass": self.mass,
            "ssim": float(self.ssim.mean()),
            "ssim_best": float(self.ssim.max()),
            "above_half": float((self.ssim > HALF).sum()),
            "recovered": float(right.sum()),
            "claimed": float(claimed.sum()),
            "claimed_rightly": float(right[claimed].float().mean()) if claimed.any() else 1.0,
        }


def score_reconstruction(
    found: AssignedImages, truth: GroundTruth, mean: tuple[float, ...], std: tuple[float, ...]
) -> ReconstructionScore:
    """Match recovered images to private ones by who is in which encoding, and compare them.

    Args:
        found: images, and which of them are in each encoding.
        truth: of the same encodings.
        mean: of the normalization, by which pixels from 0 to 1 come back.
        std: of the normalization.

    Raises:
        InstaHideError: SciPy is missing.
    """
    private = truth.partners[:, : truth.private_k]
    rows = _matching(found.assignment, private, len(found.images), len(truth.images))
    same = rows[found.assignment][:, :, None] == private[:, None, :]
    right = (same & (found.assignment >= 0)[:, :, None]).any(dim=1)
    weights = truth.coefficients[:, : truth.private_k]
    moments = (torch.tensor(moment)[:, None, None] for moment in (std, mean))
    scale, shift = moments
    originals = (truth.images[rows] * scale + shift).clamp(0, 1)
    mapped = metrics.best_affine(found.images, originals)
    likeness = metrics.ssim(mapped, originals)
    mass = float((weights * right).sum() / weights.sum())
    return ReconstructionScore(rows, mapped, originals, likeness, mass)


def _matching(members: Tensor, private: Tensor, images: int, originals: int) -> Tensor:
    """(m,) the private image that shares most encodings with each, no two the same."""
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

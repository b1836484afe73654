"""The score of a submission to a challenge.

The formulas are those of the README of InstaHide's challenge
(https://github.com/Hazelsuko07/InstaHide_Challenge).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.audit.challenge.baseline_names import AUTHOR, require_other_attack
from instahide.audit.challenge.challenge import ChallengeTruth
from instahide.audit.challenge.submission import Submission
from instahide.audit.scoring import metrics
from instahide.audit.scoring.blank_baseline import best_blank, counts_as_recovered
from instahide.errors import DataError
from instahide.utils.optional_deps import requires_extra

#: Resamplings of private images for the confidence interval, and the probability outside it.
RESAMPLINGS, LEFT_OUT = 2000, 0.05
#: Largest absolute value of a normalized decryption, far beyond any image: larger ones are cut, so
#: that no figure overflows.
MOST_VALUE = 1e4
#: Number of decryptions that are compared at a time.
BLOCK = 1000


@dataclass(frozen=True)
class ChallengeScore:
    """The score of one submission, by the formulas of the authors' challenge.

    Each decryption is compared with every private image of its mix, usually two. The best SSIM is
    1, and the best L2 (mean squared difference of pixels from 0 to 1) is 0. A decryption that shows
    one of two images exactly has a mean SSIM of about a half.

    Attributes:
        max_ssim: mean over all encodings of the larger SSIM to a private image; it ranks.
        max_ssim_low: lower end of its 95% interval over private images.
        max_ssim_high: upper end.
        mean_ssim: mean over all encodings of the mean SSIM to the private images.
        min_l2: mean over all encodings of the smaller L2 to a private image; the authors'
            leaderboard shows it instead of ``max_l2``.
        max_l2: mean over all encodings of the larger L2.
        mean_l2: mean over all encodings of the mean L2 to the private images.
        max_ssim_per_image: as ``max_ssim``, but the mean over private images of the mean over the
            encodings whose decryption is most similar to them.
        max_ssim_affine: as ``max_ssim``, after the best affine map of each decryption's channels.
        images_recovered: number of private images with a decryption whose SSIM exceeds that of the
            best blank picture by a margin; see `instahide.audit.scoring.blank_baseline`.
    """

    max_ssim: float
    max_ssim_low: float
    max_ssim_high: float
    mean_ssim: float
    min_l2: float
    max_l2: float
    mean_l2: float
    max_ssim_per_image: float
    max_ssim_affine: float
    images_recovered: int


class _Compared(NamedTuple):
    """(N, private_k) each: SSIM, L2, and SSIM under the best affine map, to each private image."""

    ssim: Tensor
    l2: Tensor
    affine: Tensor


def score_submission(submission: Submission, truth: ChallengeTruth) -> ChallengeScore:
    """Score a submission.

    Raises:
        DataError: it is of another challenge, has another shape, or is named like a baseline and
            has another author.
    """
    challenge = truth.facts
    if submission.facts.author != AUTHOR:
        require_other_attack(submission.facts.attack)
    if submission.facts.challenge != challenge.challenge:
        raise DataError(
            f"The submission is of the challenge {submission.facts.challenge}, and this is the "
            f"truth of {challenge.id}, version {challenge.version}: {challenge.challenge}.",
            "Score it against the truth of its own challenge.",
        )
    return score_decryptions(submission.decryptions, truth)


def score_decryptions(decryptions: NDArray[Any], truth: ChallengeTruth) -> ChallengeScore:
    """Score (N, H, W, C) decryptions: one normalized image per encoding.

    A decryption is compared with all private images of its mix. Values are denormalized and clipped
    to the range from 0 to 1.

    Raises:
        DataError: the decryptions have another shape.
    """
    wanted = (len(truth.private), *truth.originals.transpose(0, 2, 3, 1).shape[1:])
    if decryptions.shape != wanted:
        raise DataError(
            f"The decryptions have the shape {decryptions.shape}.",
            f"A submission to this challenge has the shape {wanted}.",
        )
    blocks = zip(*_compared(decryptions, truth), strict=True)
    return _summary(_Compared(*map(torch.cat, blocks)), truth, best_blank(_originals(truth)))


def score_blank(truth: ChallengeTruth) -> ChallengeScore:
    """A bound: no submission of blank pictures, which show nothing of any image, scores better.

    A blank picture has one color. For every figure and every private image, the color is the best
    one, chosen with knowledge of the truth.
    """
    originals, private = _originals(truth), torch.from_numpy(truth.private)
    mean_colour = originals.mean(dim=(2, 3), keepdim=True).expand_as(originals)
    blank = best_blank(originals)
    compared = _Compared(
        blank[private],
        metrics.mse(mean_colour, originals)[private],
        metrics.ssim(mean_colour, originals)[private],
    )
    return _summary(compared, truth, blank)


def _originals(truth: ChallengeTruth) -> Tensor:
    """(M, C, H, W) private images, from 0 to 1."""
    mean, std = _moments(truth)
    return (torch.from_numpy(truth.originals) * std + mean).clamp(0, 1)


def _moments(truth: ChallengeTruth) -> tuple[Tensor, Tensor]:
    """(C, 1, 1) mean and standard deviation of the normalization."""
    facts = truth.facts
    return torch.tensor(facts.mean)[:, None, None], torch.tensor(facts.std)[:, None, None]


def _compared(decryptions: NDArray[np.floating], truth: ChallengeTruth) -> Iterator[_Compared]:
    """Blocks of decryptions, compared with the private images of their mixes."""
    mean, std = _moments(truth)
    originals, private = _originals(truth), torch.from_numpy(truth.private)
    for rows in torch.split(torch.arange(len(private)), BLOCK):
        values = np.clip(decryptions[rows.numpy()], -MOST_VALUE, MOST_VALUE)
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)
        found = torch.from_numpy(values) * std + mean
        shown = found.clamp(0, 1)
        columns = [originals[column] for column in private[rows].T]
        yield _Compared(
            torch.stack([metrics.ssim(shown, original) for original in columns], dim=1),
            torch.stack([metrics.mse(shown, original) for original in columns], dim=1),
            torch.stack([_affine_ssim(found, original) for original in columns], dim=1),
        )


def _summary(compared: _Compared, truth: ChallengeTruth, blank: Tensor) -> ChallengeScore:
    """All figures; ``blank`` (M,) is the SSIM of the best blank picture to each private image."""
    ssim, nearest = compared.ssim.max(dim=1)
    image = torch.from_numpy(truth.private).gather(1, nearest[:, None])[:, 0]
    low, high = _interval(ssim, image)
    per_image = [float(ssim[image == row].mean()) for row in torch.unique(image)]
    recovered = counts_as_recovered(ssim, blank[image])
    return ChallengeScore(
        max_ssim=float(ssim.mean()),
        max_ssim_low=low,
        max_ssim_high=high,
        mean_ssim=float(compared.ssim.mean()),
        min_l2=float(compared.l2.amin(dim=1).mean()),
        max_l2=float(compared.l2.amax(dim=1).mean()),
        mean_l2=float(compared.l2.mean()),
        max_ssim_per_image=math.fsum(per_image) / len(per_image),
        max_ssim_affine=float(compared.affine.amax(dim=1).mean()),
        images_recovered=len(torch.unique(image[recovered])),
    )


def _affine_ssim(found: Tensor, original: Tensor) -> Tensor:
    return metrics.ssim(metrics.best_affine(found, original), original)


def _interval(values: Tensor, image: Tensor) -> tuple[float, float]:
    """Bootstrap interval of the mean, by resampling private images with all their encodings."""
    with requires_extra("SciPy", "audit"):
        from scipy.stats import bootstrap
    rows, of = torch.unique(image, return_inverse=True)
    if len(rows) == 1:
        return float(values.mean()), float(values.mean())
    sums = torch.zeros(len(rows), dtype=torch.float64).scatter_add_(0, of, values.double()).numpy()
    interval = bootstrap(
        (sums, of.bincount().numpy()),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        paired=True, n_resamples=RESAMPLINGS, confidence_level=1 - LEFT_OUT, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)

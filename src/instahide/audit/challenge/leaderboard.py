"""The score of a challenge: its four figures for a submission, and the leaderboard."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.audit.challenge.challenge import ChallengeTruth, read_array
from instahide.audit.scoring import metrics
from instahide.audit.scoring.blank_baseline import best_blank, counts_as_recovered
from instahide.errors import DamagedFileError, DataError, failure_reason
from instahide.utils.atomic_write import atomic_write, read_regular
from instahide.utils.optional_deps import requires_extra

#: Resamplings of private images for the confidence interval, and the probability outside it.
RESAMPLINGS, LEFT_OUT = 2000, 0.05
#: Number of decryptions that are compared at a time.
BLOCK = 1000
#: Largest size of a leaderboard in bytes.
MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class ChallengeScore:
    """The score of one submission; the best SSIM is 1, the best L2 (mean squared difference) 0.

    Attributes:
        max_ssim: SSIM of the best decryption.
        mean_ssim: mean SSIM over all encodings.
        mean_ssim_low: lower end of its 95% interval over private images.
        mean_ssim_high: upper end.
        mean_ssim_per_image: mean over private images of the mean over their encodings.
        mean_ssim_affine: mean over all encodings after the best affine map of each one's channels.
        min_l2: L2 of the best decryption.
        max_l2: L2 of the worst decryption.
        mean_l2: mean L2 over all encodings.
        images_recovered: number of private images with a decryption whose SSIM exceeds that of the
            best blank picture by a margin; see `instahide.audit.scoring.blank_baseline`.
    """

    max_ssim: float
    mean_ssim: float
    mean_ssim_low: float
    mean_ssim_high: float
    mean_ssim_per_image: float
    mean_ssim_affine: float
    min_l2: float
    max_l2: float
    mean_l2: float
    images_recovered: int = 0


class _Compared(NamedTuple):
    """(N,) each: SSIM, L2, SSIM under the best affine map, and the private image that counts."""

    ssim: Tensor
    l2: Tensor
    affine: Tensor
    image: Tensor


def score_submission(path: Path, truth: ChallengeTruth) -> ChallengeScore:
    """Score ``decryption.npy``: (N, H, W, C) float, one normalized image per encoding.

    A decryption is compared with the nearest private image of its mix. Values are denormalized and
    clipped to the range from 0 to 1.

    Raises:
        DataError: the file is not a readable array, has another shape, or is not finite.
    """
    decryptions = read_array(path, 4)
    wanted = (len(truth.private), *truth.originals.transpose(0, 2, 3, 1).shape[1:])
    if decryptions.shape != wanted:
        raise DataError(
            f"{path} has the shape {decryptions.shape}.",
            f"A submission to this challenge has the shape {wanted}.",
        )
    blocks = zip(*_compared(decryptions, truth), strict=True)
    return _summary(_Compared(*map(torch.cat, blocks)), best_blank(_originals(truth)))


def score_blank(truth: ChallengeTruth) -> ChallengeScore:
    """The best score of a submission of blank pictures, which show nothing of any image.

    Each picture has one color, chosen with knowledge of the truth as the best one for each figure.
    """
    originals, private = _originals(truth), torch.from_numpy(truth.private)
    mean_colour = originals.mean(dim=(2, 3), keepdim=True).expand_as(originals)
    blank = best_blank(originals)
    likeness = blank[private]
    compared = _Compared(
        likeness.amax(dim=1),
        metrics.mse(mean_colour, originals)[private].amin(dim=1),
        metrics.ssim(mean_colour, originals)[private].amax(dim=1),
        private.gather(1, likeness.argmax(dim=1, keepdim=True))[:, 0],
    )
    return _summary(compared, blank)


def enter(leaderboard: Path, name: str, score: ChallengeScore) -> None:
    """Append an entry to a CSV file, which is created if it does not exist.

    Raises:
        DamagedFileError: the file has other columns.
    """
    before = _entries(leaderboard) if leaderboard.exists() else ""
    row = {"name": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(score)}
    if before and next(csv.reader(before.splitlines()), []) != list(row):
        raise DamagedFileError(
            f"{leaderboard} is not a leaderboard with these columns: {', '.join(row)}.",
            "Name a new file, or rename the old one.",
        )
    with (
        atomic_write(leaderboard) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(before)
        writer = csv.DictWriter(file, list(row))
        if not before:
            writer.writeheader()
        writer.writerow(row)


def _entries(leaderboard: Path) -> str:
    try:
        return read_regular(leaderboard, MOST_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise DamagedFileError(
            f"{leaderboard} is not a readable leaderboard ({failure_reason(error)}).",
            "Name another file, or move this one away.",
        ) from error


def _originals(truth: ChallengeTruth) -> Tensor:
    """(M, C, H, W) private images, from 0 to 1."""
    mean, std = (torch.tensor(moment)[:, None, None] for moment in (truth.mean, truth.std))
    return (torch.from_numpy(truth.originals) * std + mean).clamp(0, 1)


def _compared(decryptions: NDArray[np.floating], truth: ChallengeTruth) -> Iterator[_Compared]:
    """Blocks of decryptions, compared with the private images of their mixes."""
    mean, std = (torch.tensor(moment)[:, None, None] for moment in (truth.mean, truth.std))
    originals, private = _originals(truth), torch.from_numpy(truth.private)
    for rows in torch.split(torch.arange(len(private)), BLOCK):
        values = np.array(decryptions[rows.numpy()], np.float32).transpose(0, 3, 1, 2)
        found = torch.from_numpy(np.ascontiguousarray(values)) * std + mean
        shown = found.clamp(0, 1)
        columns = [originals[column] for column in private[rows].T]
        likeness = torch.stack([metrics.ssim(shown, original) for original in columns], dim=1)
        affine = torch.stack([_affine_ssim(found, original) for original in columns], dim=1)
        image = private[rows].gather(1, likeness.argmax(dim=1, keepdim=True))[:, 0]
        distance = metrics.mse(shown, originals[image])
        yield _Compared(likeness.amax(dim=1), distance, affine.amax(dim=1), image)


def _summary(compared: _Compared, blank: Tensor) -> ChallengeScore:
    """All figures; ``blank`` (M,) is the SSIM of the best blank picture to each private image."""
    ssim, l2, affine, image = compared
    low, high = _interval(ssim, image)
    per_image = [float(ssim[image == row].mean()) for row in torch.unique(image)]
    recovered = counts_as_recovered(ssim, blank[image])
    return ChallengeScore(
        max_ssim=float(ssim.max()),
        mean_ssim=float(ssim.mean()),
        mean_ssim_low=low,
        mean_ssim_high=high,
        mean_ssim_per_image=math.fsum(per_image) / len(per_image),
        mean_ssim_affine=float(affine.mean()),
        min_l2=float(l2.min()),
        max_l2=float(l2.max()),
        mean_l2=float(l2.mean()),
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

"""Scores of attacks on any encoder: linkage of encodings, of known images, and distinguishing.

Each comes with an interval of 95%, and with what guessing gives.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.attacks.any_encoder.observation import Guesses, LinkageScores, MatchScores
from instahide.audit.ground_truth import GroundTruth, require_known
from instahide.audit.scoring.matching import pictures_of
from instahide.audit.scoring.membership import membership_figures
from instahide.utils.optional_deps import requires_extra

#: Coverage of the intervals.
COVERED = 0.95


def linkage_figures(found: LinkageScores, truth: GroundTruth) -> dict[str, float]:
    """How well the scores tell pairs of encodings of one image from pairs without a common image.

    Each encoding is in at most one pair of each kind. Empty if there is no pair of a kind.

    Raises:
        InstaHideError: scikit-learn is missing.
    """
    private = pictures_of(truth.images)[truth.partners[found.rows, : truth.private_k]].numpy()
    same = _pairs_of_one_image(private[:, 0])
    others = _pairs_of_two_images(private)
    if not (len(same) and len(others)):
        return {}
    pairs = torch.from_numpy(np.concatenate([same, others]))
    scores = found.scores[pairs[:, 0], pairs[:, 1]]
    linked = torch.arange(len(pairs)) < len(same)
    figures = membership_figures(scores, linked)
    return {f"linkage_{name}": value for name, value in figures.items()} | {
        "linkage_pairs_of_one_image": float(len(same)),
        "linkage_pairs_of_two_images": float(len(others)),
    }


def match_figures(found: MatchScores, truth: GroundTruth) -> dict[str, float]:
    """Share of images whose encoding is most similar to a known image that is in it.

    One encoding of each image counts, so that the interval is one over images.

    Raises:
        InstaHideError: SciPy is missing.
    """
    private = truth.partners[:, : truth.private_k]
    _, first = np.unique(private[:, 0].numpy(), return_index=True)
    chosen = torch.from_numpy(first)
    nearest = require_known(truth.known_order)[found.scores[chosen].argmax(dim=1)]
    pictures = pictures_of(truth.images)
    right = (pictures[private[chosen]] == pictures[nearest][:, None]).any(dim=1)
    return _shares("matched", right, truth.private_k / len(truth.images))


def guess_figures(found: Guesses, truth: GroundTruth) -> dict[str, float]:
    """Share of pairs whose encoded image was guessed; an undecided pair counts half.

    A score of 0 or NaN decides nothing, as the coin that an attacker could toss instead. The
    encoded image of each pair was drawn apart. So if encodings tell nothing of images, the number
    of right guesses among decided pairs is binomial, whatever else the attacker knows: the test is
    a sign test. The interval treats half a right guess as none at its low end, and as one at its
    high end.

    Raises:
        InstaHideError: SciPy is missing.
    """
    second, scores = require_known(truth.second), found.scores
    right = int(torch.where(second, scores > 0, scores < 0).sum())
    decided, pairs = int(((scores > 0) | (scores < 0)).sum()), len(scores)
    half = pairs - decided
    low, high = right + half // 2, right + (half + 1) // 2
    return {
        "distinguished": (right + half / 2) / pairs,
        "distinguished_low": _interval(low, pairs)[0],
        "distinguished_high": _interval(high, pairs)[1],
        "distinguished_by_chance": 0.5,
        "distinguished_p": _p_value(right, decided, 0.5),
        "distinguished_trials": float(pairs),
        "distinguished_decided": float(decided),
    }


def _shares(name: str, right: Tensor, chance: float) -> dict[str, float]:
    """The share of ``right`` (n,), its exact interval, and a test against ``chance``."""
    hits, trials = int(right.sum()), len(right)
    low, high = _interval(hits, trials)
    return {
        name: float(right.float().mean()),
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_by_chance": chance,
        f"{name}_p": _p_value(hits, trials, chance),
        f"{name}_trials": float(trials),
    }


def _interval(hits: int, trials: int) -> tuple[float, float]:
    """The exact interval of a binomial probability."""
    with requires_extra("SciPy", "audit"):
        from scipy.stats import binomtest
    found = binomtest(hits, trials).proportion_ci(COVERED, method="exact")
    return float(found.low), float(found.high)


def _p_value(hits: int, trials: int, chance: float) -> float:
    """The probability of so many hits or more by chance; 1 without a trial."""
    with requires_extra("SciPy", "audit"):
        from scipy.stats import binomtest
    if trials == 0:
        return 1.0
    return float(binomtest(hits, trials, chance, alternative="greater").pvalue)


def _pairs_of_one_image(encoded: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m, 2) pairs of places with equal values in ``encoded`` (n,), no place twice."""
    groups = (np.flatnonzero(encoded == image) for image in np.unique(encoded))
    pairs = [group[: len(group) // 2 * 2].reshape(-1, 2) for group in groups]
    return np.asarray(np.concatenate([np.empty((0, 2), np.int64), *pairs]), np.int64)


def _pairs_of_two_images(private: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m, 2) pairs of rows of ``private`` (n, p) without a common value, no row twice."""
    half = len(private) // 2
    one, other = np.arange(half), np.arange(half, 2 * half)
    common = (private[one][:, :, None] == private[other][:, None, :]).any(axis=(1, 2))
    return np.asarray(np.stack([one, other], axis=1)[~common], np.int64)

"""Candidate images for membership inference, and the figures of an attack's scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instahide.attacks.base import EncodingObservation, NetworkObservation
from instahide.audit.ground_truth import GroundTruth
from instahide.data import ImageTable
from instahide.data.normalization.normalization import Normalization
from instahide.encryption.encoder import random_permutation
from instahide.errors import DataError
from instahide.utils.optional_deps import requires_extra

#: False-positive rates at which true-positive rates are reported (Carlini et al., S&P 2022).
FALSE_POSITIVES = {"1_percent": 0.01, "01_percent": 0.001}
#: Resamplings of the bootstrap and of random memberships; and the coverage of its interval.
DRAWS, COVERED = 500, 0.95


def with_candidates(
    observed: tuple[EncodingObservation, GroundTruth],
    network: nn.Module,
    members: ImageTable,
    others: ImageTable,
) -> tuple[NetworkObservation, GroundTruth]:
    """Give the attacker the trained ``network`` and candidate images in random order.

    Args:
        observed: the attacker's observation, and its ground truth.
        network: network trained on encodings of ``members``.
        members: training images with their classes.
        others: similar images that the network was not trained on.

    Raises:
        InstaHideError: members and others have different shapes, or there are none of either.
    """
    _require_both(members, others)
    observation, truth = observed
    order = random_permutation(len(members) + len(others))
    candidates = replace(
        members,
        pixels=np.concatenate([members.pixels, others.pixels])[order],
        labels=np.concatenate([members.labels, others.labels])[order],
        classes=max(members.classes, others.classes, key=len),
        sources=None,
        groups=None,
    ).normalized_like(Normalization(observation.mean, observation.std, members.value_range))
    learned = torch.from_numpy(order < len(members))
    with_network = NetworkObservation(
        observation.scheme,
        observation.mean,
        observation.std,
        observation.threat,
        network,
        candidates,
        observation.public,
    )
    return with_network, replace(truth, learned=learned)


def _require_both(members: ImageTable, others: ImageTable) -> None:
    if members.shape != others.shape or not (len(members) and len(others)):
        raise DataError(
            f"There are {len(members)} members of shape {members.shape} and {len(others)} other "
            f"images of shape {others.shape}; both groups must have images, of the same shape.",
            "Use images of one shape, some that were trained on and some that were not.",
        )


def membership_figures(scores: Tensor, learned: Tensor) -> dict[str, float]:
    """Figures of how well ``scores`` (m,) separate members (``learned``, (m,) bool) from others.

    The area under the ROC curve, true-positive rates at low false-positive rates, and the best
    balanced accuracy of any threshold. The latter is chosen in hindsight, so chance is above 0.5.
    ``_low`` and ``_high`` are a 95% bootstrap interval over members and others. True-positive rates
    are given at rates that allow at least one false positive.

    Raises:
        InstaHideError: scikit-learn is missing.
    """
    inside, outside = scores[learned].double().numpy(), scores[~learned].double().numpy()
    found = _figures(inside, outside)
    generator = np.random.default_rng(0)
    drawn = [
        _figures(generator.choice(inside, len(inside)), generator.choice(outside, len(outside)))
        for _ in range(DRAWS)
    ]
    tail = (1 - COVERED) / 2
    bounds = {
        f"{name}_{side}": float(np.quantile([figures[name] for figures in drawn], share))
        for name in found
        for side, share in (("low", tail), ("high", 1 - tail))
    }
    return found | bounds | {"balanced_accuracy_by_chance": _by_chance(inside, outside, generator)}


def _by_chance(
    inside: NDArray[np.float64], outside: NDArray[np.float64], generator: np.random.Generator
) -> float:
    """The mean balanced accuracy of the best threshold if memberships are permuted at random."""
    scores, found = np.concatenate([inside, outside]), []
    for _ in range(DRAWS // 5):
        mixed = generator.permutation(scores)
        figures = _figures(mixed[: len(inside)], mixed[len(inside) :])
        found.append(figures["balanced_accuracy"])
    return float(np.mean(found))


def _figures(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> dict[str, float]:
    with requires_extra("scikit-learn", "audit"):
        from sklearn.metrics import auc, roc_curve
    learned = np.repeat([1, 0], [len(inside), len(outside)])
    false, true, _ = roc_curve(learned, np.concatenate([inside, outside]), drop_intermediate=False)
    return {
        "auc": float(auc(false, true)),
        "balanced_accuracy": float((1 + true - false).max() / 2),
        **{
            f"true_at_{name}_false": float(true[false <= share].max())
            for name, share in FALSE_POSITIVES.items()
            if share * len(outside) >= 1
        },
    }

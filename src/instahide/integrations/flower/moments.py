"""Means and standard deviations that participants send before the first round.

They are of pixels, for the normalization, and of the values of a regression, for the unit of the
network's outputs. A participant with few pictures, or with values that are all the same, refuses to
send those of values, because single values could be computed from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flwr.app import MetricRecord, MetricRecordValues
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.data.normalization.normalization import Normalization
from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.training.data.target_scale import TargetScale

#: Fewest pictures, or groups, of a participant whose measured values have a mean that it sends.
LEAST_PICTURES = 10
#: Largest distance of the mean of a measured value at a participant from that of all participants,
#: and from the median of all, in standard deviations of the participant and of the median. Wide,
#: for participants with other patients; a value in grams among kilograms lies beyond.
MOST_TARGET_SHIFT = 4.0
#: Largest factor between the standard deviations of a measured value.
MOST_TARGET_RATIO = 4.0


def wanted(agreement: FederationSpec) -> frozenset[str]:
    """The names of the numbers that ``agreement`` lacks."""
    names: set[str] = set()
    if agreement.normalization is None:
        names |= {"mean", "std"}
    if agreement.task == "regression" and not agreement.target.mean:
        names |= {"target-mean", "target-std"}
    return frozenset(names)


def moments(images: ImageTable, agreement: FederationSpec) -> MetricRecord:
    """The numbers of a client's images that ``agreement`` lacks, as the metrics of a reply.

    Args:
        images: the images, with the values of the federation in its order.
        agreement: what is agreed on so far.

    Raises:
        RefusalError: single values could be computed from the numbers.
    """
    found: dict[str, MetricRecordValues] = {"num-examples": len(images)}
    names = wanted(agreement)
    if "mean" in names:
        found |= {"mean": [*images.mean], "std": [*images.std]}
    if "target-mean" in names:
        scale = own_scale(images)
        found |= {"target-mean": [*scale.mean], "target-std": [*scale.std]}
    return MetricRecord(found)


def own_scale(images: ImageTable) -> TargetScale:
    """The mean and the standard deviation of each value of ``images``, of a regression.

    Raises:
        RefusalError: there are fewer than `LEAST_PICTURES` pictures or groups, or a value is the
            same in all images.
    """
    pictures = len(np.unique(images.content_ids))
    if pictures < LEAST_PICTURES:
        raise RefusalError(
            f"This participant has measured values of {pictures} pictures or groups, too few for "
            "a mean that hides single values.",
            f"Take part with {LEAST_PICTURES} or more.",
        )
    if (images.labels == images.labels[:1]).all(axis=0).any():
        raise RefusalError(
            "A measured value is the same in all images of this participant.",
            "Leave the value out of the federation, or take this participant out.",
        )
    values = images.labels.astype(np.float64)
    return TargetScale(tuple(values.mean(0).tolist()), tuple(values.std(0).tolist()))


def require_near_targets(images: ImageTable, target: TargetScale) -> None:
    """Check that the server's scale of measured values is plausible for those of ``images``.

    Values in another unit, such as months in place of years, would be learned as they are.

    Raises:
        RefusalError: the scale is missing, or too far from the participant's own.
    """
    if not target.mean:
        raise RefusalError(
            "The server's `target-mean` and `target-std` are missing.",
            "Agree on them before the first round.",
        )
    own = own_scale(images)
    if not near_targets(*map(np.asarray, (target.mean, target.std, own.mean, own.std))).all():
        # Which value, and how far it is, would tell something about it.
        raise RefusalError(
            "The server's `target-mean` or `target-std` is too far from that of a measured value "
            "of this participant.",
            "Check that all participants have the value in the same unit.",
        )


def near_targets(
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    other_mean: NDArray[np.float64],
    other_std: NDArray[np.float64],
) -> NDArray[np.bool]:
    """Whether two scales of a value are within `MOST_TARGET_SHIFT` and `MOST_TARGET_RATIO`.

    Args:
        mean: of the one.
        std: of the one.
        other_mean: of the other.
        other_std: of the other, in which the shift is measured.
    """
    near = np.abs(mean - other_mean) <= MOST_TARGET_SHIFT * other_std
    ratio = std / other_std
    return np.asarray(near & (ratio <= MOST_TARGET_RATIO) & (ratio >= 1 / MOST_TARGET_RATIO))


def averaged(answers: Sequence[MetricRecord]) -> Normalization:
    """Mean and standard deviation, per channel, over the images of all clients together.

    Args:
        answers: results of `moments`; at least one.
    """
    mean, std = _pooled(answers, "")
    # That of a constant channel is 1 by definition, and there is no larger one.
    return Normalization(mean, tuple(min(value, 1.0) for value in std))


def averaged_targets(answers: Sequence[MetricRecord]) -> TargetScale:
    """Mean and standard deviation, per value, over the images of all clients together.

    Args:
        answers: results of `moments` for a regression; at least one.
    """
    return TargetScale(*_pooled(answers, "target-"))


def _pooled(
    answers: Sequence[MetricRecord], prefix: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    counts, means, deviations = (
        np.asarray([answer[name] for answer in answers], np.float64)
        for name in ("num-examples", f"{prefix}mean", f"{prefix}std")
    )
    share = counts / counts.sum()
    mean = share @ means
    # Around the mean, since differences of large squares would lose their digits.
    variance = share @ (deviations**2 + (means - mean) ** 2)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())

"""Which labels encodings may have, for each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from instahide.data.labels import Task

#: Tolerance for rounding in float32 labels, which sum to at most 1.
ROUNDING = 1e-5


def are_possible_labels(labels: Tensor, task: Task, least: float = 0.0) -> bool:
    """Whether ``labels`` (n, columns) are those of mixes of images.

    Args:
        labels: float32 shares of classes, findings from 0 to 1 (NaN for an unknown one), or finite
            values.
        task: which of these they are.
        least: the smallest possible sum of the shares of classes; other tasks ignore it.

    Examples:
        >>> import torch
        >>> from instahide.encryption.mixed_labels import are_possible_labels
        >>> are_possible_labels(torch.tensor([[0.3, 0.7]]), "single-label")
        True
        >>> are_possible_labels(torch.tensor([[0.3, 0.8]]), "single-label")
        False
    """
    return _POSSIBLE[task](labels, least)


def _are_shares(labels: Tensor, least: float) -> bool:
    # A comparison with NaN is false, so NaN is detected as well.
    sums = labels.sum(dim=1)
    enough = sums >= least - ROUNDING
    return bool((labels >= 0).all() & enough.all() & (sums <= 1 + ROUNDING).all())


def _are_findings(labels: Tensor, _: float) -> bool:
    return bool((labels.isnan() | ((labels >= 0) & (labels <= 1 + ROUNDING))).all())


def _are_values(labels: Tensor, _: float) -> bool:
    return bool(labels.isfinite().all())


_POSSIBLE: Mapping[Task, Callable[[Tensor, float], bool]] = {
    "single-label": _are_shares,
    "multi-label": _are_findings,
    "regression": _are_values,
}

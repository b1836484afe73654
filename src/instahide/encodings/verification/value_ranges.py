"""Checks that encodings are possible under their manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from instahide.data.labels import Task
from instahide.encodings.manifest import Manifest

#: Tolerance for rounding in float32 labels, which sum to at most 1.
_ROUNDING = 1e-5


def value_problems(images: Tensor, labels: Tensor, manifest: Manifest) -> str | None:
    """A description of the problem with these encodings; None if there is none.

    Args:
        images: float32 (n, C, H, W), decoded.
        labels: float32 (n, classes); NaN for an unknown finding.
        manifest: manifest of the folder.
    """
    bound = manifest.max_abs * (1 + _ROUNDING) + manifest.max_quantization_error
    # A comparison with NaN is false, so NaN is detected as well.
    if not bool(((images.abs() <= bound) & images.isfinite()).all()):
        return f"values lie beyond {bound:.3f}, or are no numbers"
    right = _POSSIBLE[manifest.task](labels, manifest)
    return None if right else "labels are not those of a mix of this scheme"


def _are_shares(labels: Tensor, manifest: Manifest) -> bool:
    sums = labels.sum(dim=1)
    least = _least_label(manifest) - _ROUNDING
    return bool((labels >= 0).all() & (sums >= least).all() & (sums <= 1 + _ROUNDING).all())


def _are_findings(labels: Tensor, _: Manifest) -> bool:
    return bool((labels.isnan() | ((labels >= 0) & (labels <= 1 + _ROUNDING))).all())


def _are_values(labels: Tensor, _: Manifest) -> bool:
    return bool(labels.isfinite().all())


_POSSIBLE: Mapping[Task, Callable[[Tensor, Manifest], bool]] = {
    "single-label": _are_shares,
    "multi-label": _are_findings,
    "regression": _are_values,
}


def _least_label(manifest: Manifest) -> float:
    """The smallest possible sum of a label."""
    if not manifest.of_scheme:
        return 0.0
    scheme = manifest.encryption()
    sums_to_one = scheme.label_mode == "renormalised" or scheme.public_k == 0
    return 1.0 if sums_to_one else max(scheme.c2, scheme.min_self_coefficient)

"""Checks that encodings are possible under their manifest."""

from __future__ import annotations

from torch import Tensor

from instahide.encodings.manifest import Manifest
from instahide.encryption.mixed_labels import ROUNDING, are_possible_labels


def value_problems(images: Tensor, labels: Tensor, manifest: Manifest) -> str | None:
    """A description of the problem with these encodings; None if there is none.

    Args:
        images: float32 (n, C, H, W), decoded.
        labels: float32 (n, classes); NaN for an unknown finding.
        manifest: manifest of the folder.
    """
    bound = manifest.max_abs * (1 + ROUNDING) + manifest.max_quantization_error
    # A comparison with NaN is false, so NaN is detected as well.
    if not bool(((images.abs() <= bound) & images.isfinite()).all()):
        return f"values lie beyond {bound:.3f}, or are no numbers"
    right = are_possible_labels(labels, manifest.task, _least_label(manifest))
    return None if right else "labels are not those of a mix of this scheme"


def _least_label(manifest: Manifest) -> float:
    """The smallest possible sum of a label."""
    if not manifest.of_scheme:
        return 0.0
    scheme = manifest.encryption()
    sums_to_one = scheme.label_mode == "renormalised" or scheme.public_k == 0
    return 1.0 if sums_to_one else max(scheme.c2, scheme.min_self_coefficient)

"""Whether encodings can be what their manifest says."""

from __future__ import annotations

from torch import Tensor

from instahide.encodings.manifest import Manifest

#: Rounding of float32 labels of a mix, which sum to at most 1.
_ROUNDING = 1e-5


def value_problems(images: Tensor, labels: Tensor, manifest: Manifest) -> str | None:
    """What is wrong with encodings, or nothing.

    Args:
        images: float32 (n, C, H, W), decoded.
        labels: float32 (n, classes).
        manifest: what says how they were made.
    """
    bound = manifest.max_abs * (1 + _ROUNDING) + manifest.max_quantization_error
    # A comparison with NaN fails, so that these are found as well.
    if not bool((images.abs() <= bound).all()):
        return f"values lie beyond {bound:.3f}, or are no numbers"
    sums = labels.sum(dim=1)
    least = _least_label(manifest) - _ROUNDING
    right = (labels >= 0).all() & (sums >= least).all() & (sums <= 1 + _ROUNDING).all()
    return None if bool(right) else "labels are not those of a mix of this scheme"


def _least_label(manifest: Manifest) -> float:
    """What a label sums to, at the least."""
    scheme = manifest.encryption()
    sums_to_one = scheme.label_mode == "renormalised" or scheme.public_k == 0
    return 1.0 if sums_to_one else max(scheme.c2, scheme.min_self_coefficient)

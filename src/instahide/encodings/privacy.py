"""Differential privacy of published folders, as far as their manifests tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from instahide.encodings.manifest import Manifest
from instahide.encryption.encoders.base import Published
from instahide.encryption.encoders.registry import is_builtin
from instahide.encryption.privacy import DELTA, privacy_statement, require_delta


def folder_epsilon(manifest: Manifest, delta: float = DELTA) -> float | None:
    """An upper bound of epsilon for this folder alone; its coefficients are not published.

    None with an exposure limit: images at their limit are not drawn any more and others more often,
    so that only the publisher's ledger has the figure. None as well for an encoder of another
    package, which is not imported here. Infinite without a guarantee.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1.
    """
    require_delta(delta)
    if not is_builtin(manifest.encoder):
        return None
    shape = manifest.image_shape or manifest.shape
    published = Published(manifest.private_images, shape, manifest.std, manifest.copies)
    epsilon = manifest.instance_encoder().epsilon(published, delta)
    uneven = manifest.limited or manifest.ended == "limit"
    return None if uneven and math.isfinite(epsilon) else epsilon


def folders_statement(manifests: Sequence[Manifest], delta: float = DELTA) -> str:
    """`privacy_statement` of one or more folders, for the least protected image.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1.
    """
    found = [folder_epsilon(manifest, delta) for manifest in manifests]
    noise = not any(epsilon is not None and math.isinf(epsilon) for epsilon in found)
    which = "this folder" if len(manifests) == 1 else "these folders"
    if not all(is_builtin(manifest.encoder) for manifest in manifests) and noise:
        return privacy_statement(
            None, delta, noise=noise, scope=", as an encoder of another package made the encodings"
        )
    if None in found:
        return privacy_statement(
            None, delta, noise=noise, scope=", but to the publisher's ledger alone"
        )
    epsilon = max(each for each in found if each is not None)
    return privacy_statement(epsilon, delta, noise=noise, scope=f", at most, by {which}")

"""Differential privacy of published folders, as far as their manifests tell."""

from __future__ import annotations

from collections.abc import Sequence

from instahide.encodings.manifest import Manifest
from instahide.encryption.privacy import DELTA, epsilon_upper_bound, privacy_statement


def folder_epsilon(manifest: Manifest, delta: float = DELTA) -> float | None:
    """An upper bound of epsilon for this folder alone; its coefficients are not published.

    None with an exposure limit: images at their limit are not drawn any more and others more often,
    so that only the publisher's ledger has the figure. Infinite without noise.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1.
    """
    scheme = manifest.encryption()
    if scheme.noise and (manifest.limited or manifest.ended == "limit"):
        return None
    return epsilon_upper_bound(
        scheme, manifest.shape, manifest.std, copies=manifest.copies, delta=delta
    )


def folders_statement(manifests: Sequence[Manifest], delta: float = DELTA) -> str:
    """`privacy_statement` of one or more folders, for the least protected image.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1.
    """
    found = [folder_epsilon(manifest, delta) for manifest in manifests]
    noise = all(manifest.encryption().noise for manifest in manifests)
    which = "this folder" if len(manifests) == 1 else "these folders"
    if None in found:
        return privacy_statement(
            None, delta, noise=noise, scope=", but to the publisher's ledger alone"
        )
    epsilon = max(each for each in found if each is not None)
    return privacy_statement(epsilon, delta, noise=noise, scope=f", at most, by {which}")

"""Guarantees of published folders, as far as their manifests tell."""

from __future__ import annotations

from collections.abc import Sequence

from instahide.encodings.manifest import Manifest
from instahide.encryption.guarantees.robustness import BASELINE
from instahide.encryption.guarantees.statements import Guarantees
from instahide.encryption.privacy import DELTA


def folder_guarantees(manifest: Manifest, delta: float = DELTA) -> Guarantees:
    """Bounds for every image by this folder alone; its coefficients are not published.

    Unknown with an exposure limit: images at their limit are not drawn any more and others more
    often, so that only the publisher's ledger has the figures.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1.
    """
    scheme = manifest.encryption()
    noise = bool(scheme.noise)
    if noise and (manifest.limited or manifest.ended == "limit"):
        return Guarantees(noise, delta=delta)
    return Guarantees.beforehand(
        scheme, manifest.shape, manifest.std, copies=manifest.copies, delta=delta
    )


def folders_statements(
    manifests: Sequence[Manifest], delta: float = DELTA, baseline: float = BASELINE
) -> dict[str, str]:
    """The sentences on one or more folders, for the least protected image.

    Raises:
        InstaHideError: ``delta`` or ``baseline`` is not between 0 and 1.
    """
    found = [folder_guarantees(manifest, delta) for manifest in manifests]
    noise = all(each.noise for each in found)
    which = "this folder" if len(manifests) == 1 else "these folders"
    epsilons, floors, losses = (
        [value for each in found if (value := getattr(each, name)) is not None]
        for name in ("epsilon", "floor", "loss")
    )
    if len(losses) < len(found):
        unknown = Guarantees(noise, delta=delta)
        return unknown.statements(baseline, scope=", but to the publisher's ledger alone")
    least = Guarantees(noise, max(epsilons), min(floors), max(losses), delta)
    return least.statements(baseline, scope=f", by {which}", at_most=True)

"""Guarantees of published folders, as far as their manifests tell."""

from __future__ import annotations

from collections.abc import Sequence

from instahide.encodings.manifest import Manifest
from instahide.encryption.encoders.base import Published
from instahide.encryption.encoders.registry import is_builtin
from instahide.encryption.guarantees.robustness import BASELINE
from instahide.encryption.guarantees.statements import Guarantees
from instahide.encryption.privacy import DELTA, privacy_statement, require_delta


def folder_guarantees(manifest: Manifest, delta: float = DELTA) -> Guarantees:
    """Bounds for every image by this folder alone; its coefficients are not published.

    Unknown with an exposure limit: images at their limit are not drawn any more and others more
    often, so that only the publisher's ledger has the figures. Other encoders than schemes have no
    error floor, and their epsilon is unknown if they are of another package, which is not imported
    here.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1.
    """
    require_delta(delta)
    uneven = manifest.limited or manifest.ended == "limit"
    if not is_builtin(manifest.encoder):
        return Guarantees(noise=True, delta=delta)
    if not manifest.of_scheme:
        shape = manifest.image_shape or manifest.shape
        published = Published(manifest.private_images, shape, manifest.std, manifest.copies)
        encoder = manifest.instance_encoder()
        return Guarantees.of_encoder(encoder, published, uneven=uneven, delta=delta)
    scheme = manifest.encryption()
    noise = bool(scheme.noise)
    if noise and uneven:
        return Guarantees(noise, delta=delta)
    return Guarantees.beforehand(
        scheme, manifest.shape, manifest.std, copies=manifest.copies, delta=delta
    )


def folders_statements(
    manifests: Sequence[Manifest], delta: float = DELTA, baseline: float = BASELINE
) -> dict[str, str]:
    """The sentences on one or more folders, for the least protected image.

    If another encoder than a scheme made some of them, the only one is on differential privacy.

    Raises:
        InstaHideError: ``delta`` or ``baseline`` is not between 0 and 1.
    """
    found = [folder_guarantees(manifest, delta) for manifest in manifests]
    noise = all(each.noise for each in found)
    epsilons, floors, losses = (
        [value for each in found if (value := getattr(each, name)) is not None]
        for name in ("epsilon", "floor", "loss")
    )
    scope = _scope(manifests)
    if not all(manifest.of_scheme for manifest in manifests):
        known = len(epsilons) == len(found)
        statement = privacy_statement(
            max(epsilons) if known else None, delta, noise=noise,
            scope=f", at most{scope}" if known else _why_unknown(manifests),
        )  # fmt: skip
        return {"differential_privacy": statement}
    if len(losses) < len(found):
        unknown = Guarantees(noise, delta=delta)
        return unknown.statements(baseline, scope=_why_unknown(manifests))
    chance = max(each.chance for each in found)
    least = Guarantees(noise, max(epsilons), min(floors), max(losses), delta, chance)
    return least.statements(baseline, scope=scope, at_most=True)


def _scope(manifests: Sequence[Manifest]) -> str:
    if len(manifests) == 1:
        return ", by this folder"
    return ", by each of these folders alone (weaker for images that are in several)"


def _why_unknown(manifests: Sequence[Manifest]) -> str:
    if not all(is_builtin(manifest.encoder) for manifest in manifests):
        return ", as an encoder of another package made the encodings"
    if not all(manifest.of_scheme for manifest in manifests):
        return ", as some images are in more encodings than others"
    return ", but to the publisher's ledger alone"

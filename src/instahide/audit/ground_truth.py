"""Makes an observation for attackers and, apart from it, the truth for whoever scores them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.data import ImageTable
from instahide.encryption.encoder import random_permutation
from instahide.encryption.known_keys import KnownKeyEncodings, encode_with_known_keys
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


@dataclass(frozen=True, eq=False, repr=False)
class GroundTruth:
    """SECRET: what an observation hides. Attacks never get one.

    Attributes:
        images: (N, C, H, W) float32, the private images, normalized.
        partners: (n, k) int64 rows, private ones first, beginning with the encrypted image.
        coefficients: (n, k) float32.
        private_k: columns of ``partners`` that are private.
        classes: (N,) int64 class numbers of the private images.
        of_group: (N,) int64 the private image that each group number stands for.
        turned: (n, C, H, W) bool, where the mask turns the sign.
        encodings: (n, C, H, W) float32, where an update is observed in their stead.
        learned: (m,) bool, which candidates the network was trained on, where there are any.
    """

    images: Tensor
    partners: Tensor
    coefficients: Tensor
    private_k: int
    classes: Tensor
    group_targets: Tensor
    negated: Tensor
    encodings: Tensor | None = None
    learned: Tensor | None = None


def observe(
    images: ImageTable,
    public: ImageTable | None,
    scheme: Scheme,
    threat: ThreatModel,
    *,
    similar: ImageTable | None = None,
    shadow: ImageTable | None = None,
) -> tuple[EncodingObservation, GroundTruth]:
    """Encrypt ``images`` under throw-away keys, as an attacker of ``threat`` would come upon them.

    Args:
        images: the private images; each is encrypted ``threat.encodings_per_image`` times. For an
            attacker who is not told, take that out of the observation's threat model.
        public: the public pool, where the scheme mixes some in.
        scheme: how to encrypt.
        threat: what the attacker gets to see.
        similar: other images of the pool's kind, for an attacker who knows its distribution.
        shadow: other images of the private ones' kind, for an attacker who has some.

    Raises:
        InstaHideError: the threat model grants something that was not given, or does not say how
            many encodings to make; or as `Encoder` does.
    """
    rows = np.tile(np.arange(len(images)), _copies(threat))
    # In random order: where an encoding stands says nothing.
    rows = rows[random_permutation(len(rows))]
    made = encode_with_known_keys(scheme, images, public if scheme.public_k else None, rows)
    names = torch.from_numpy(random_permutation(len(images)))
    observation = EncodingObservation(
        scheme,
        images.mean,
        images.std,
        threat,
        made.encoded.images,
        _labels(made.encoded.labels, threat),
        public=_granted_public(threat, public, similar, images),
        shadow=_required(shadow, "shadow images", images) if threat.shadow else None,
        groups=names[torch.from_numpy(rows)] if threat.grouped else None,
        known_mixes=_mixes(made, threat.known_mixes) if threat.known_mixes else None,
    )
    return observation, ground_truth_of(images, scheme, made, torch.argsort(names))


def ground_truth_of(
    images: ImageTable, scheme: Scheme, made: KnownKeyEncodings, of_group: Tensor
) -> GroundTruth:
    """SECRET: what ``made`` hides of ``images``; ``of_group`` (N,) as in `GroundTruth`."""
    return GroundTruth(
        torch.from_numpy(images.normalized()),
        torch.from_numpy(made.partners),
        torch.from_numpy(np.ascontiguousarray(made.coefficients)),
        scheme.private_k,
        torch.from_numpy(images.labels),
        of_group,
        torch.from_numpy(made.negated),
    )


def _copies(threat: ThreatModel) -> int:
    if threat.encodings_per_image is None:
        raise InstaHideError(
            "The threat model does not say how many encodings of an image to make.",
            "Give a number; what the attacker is not told can be taken from the observation.",
        )
    return threat.encodings_per_image


def _labels(soft: Tensor, threat: ThreatModel) -> Tensor | None:
    if threat.labels == "none":
        return None
    return soft if threat.labels == "soft" else (soft > 0).float()


def _mixes(made: KnownKeyEncodings, count: int) -> Tensor:
    seen = made.encoded.images[:count]
    return torch.where(torch.from_numpy(made.negated[:count]), -seen, seen)


def _granted_public(
    threat: ThreatModel, public: ImageTable | None, similar: ImageTable | None, images: ImageTable
) -> ImageTable | None:
    if threat.public == "none":
        return None
    if threat.public == "images":
        return None if public is None else public.normalized_like(images)
    return _required(similar, "images like the public ones", images)


def _required(table: ImageTable | None, what: str, images: ImageTable) -> ImageTable:
    if table is None:
        raise InstaHideError(
            f"The threat model grants the attacker {what}, but there are none.",
            "Give some, or take them out of the threat model.",
        )
    return table.normalized_like(images)

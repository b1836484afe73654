"""Makes an observation for attackers, and the separate ground truth by which they are scored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.attacks.any_encoder.observation import PairObservation
from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoded, random_permutation
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.encryption.encoders.table_encoder import TableEncoder
from instahide.encryption.known_keys import KnownKeyEncodings, encode_with_known_keys
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, InstaHideError


@dataclass(frozen=True, eq=False, repr=False)
class GroundTruth:
    """SECRET: the ground truth behind an observation. Attacks never receive it.

    Attributes:
        images: (N, C, H, W) float32, the private images, normalized.
        partners: (n, k) int64 rows, private ones first, beginning with the encrypted image.
        coefficients: (n, k) float32.
        private_k: columns of ``partners`` that are private.
        classes: (N,) int64 class numbers of the private images.
        group_targets: (N,) int64 the private image of each group number.
        negated: (n, C, H, W) bool, whether the mask flips the sign.
        encodings: (n, C, H, W) float32, if the attacker observes an update instead.
        learned: (m,) bool, whether the network was trained on each candidate; None without
            candidates.
        groups: (N,) int64 numbers, equal for private images of one group; None if there are no
            groups.
        moves: (n, k, 3) int64 shifts down and right of each image of a mix, and 1 if it is
            mirrored; None without augmentation.
        known_order: (N,) int64 the private image at each place of the attacker's known images;
            None if it has none.
        second: (t,) bool, whether the second image of each pair was encoded; None without pairs.
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
    groups: Tensor | None = None
    moves: Tensor | None = None
    known_order: Tensor | None = None
    second: Tensor | None = None


def observe(
    images: ImageTable,
    public: ImageTable | None,
    encoder: InstanceEncoder,
    threat: ThreatModel,
    *,
    similar: ImageTable | None = None,
    shadow: ImageTable | None = None,
    augmentation: Augmentation | None = None,
) -> tuple[EncodingObservation, GroundTruth]:
    """Encrypt ``images`` under throw-away keys, and return what an attacker of ``threat`` sees.

    Args:
        images: the private images; each is encrypted ``threat.encodings_per_image`` times. If
            the attacker must not know this number, remove it from the observation's threat model.
        public: the public pool, if the encoder uses one.
        encoder: the scheme, or another encoder.
        threat: what the attacker knows.
        similar: images like those of the pool, for an attacker who knows its distribution.
        shadow: images like the private ones, for an attacker who has some.
        augmentation: crop and flip of every image of a mix, which attackers know; none by default.

    Raises:
        InstaHideError: the threat model grants images that were not passed, or does not state the
            number of encodings; or as for `Encoder`.
    """
    require_classes(images)
    rows = np.tile(np.arange(len(images)), _copies(threat))
    # In random order, so that the position of an encoding reveals nothing.
    rows = rows[random_permutation(len(rows))]
    made = _encoded(encoder, images, public, rows, augmentation)
    names = torch.from_numpy(random_permutation(len(images)))
    order = torch.from_numpy(random_permutation(len(images)))
    observation = EncodingObservation(
        encoder,
        images.mean,
        images.std,
        threat,
        made.encoded.images,
        _labels(made.encoded.labels, threat),
        public=_granted_public(threat, public, similar, images),
        shadow=_required(shadow, "shadow images", images) if threat.shadow else None,
        groups=names[torch.from_numpy(rows)] if threat.grouped else None,
        known_mixes=_mixes(made, threat.known_mixes) if threat.known_mixes else None,
        augmentation=augmentation or Augmentation(),
        known_images=torch.from_numpy(images.normalized())[order] if threat.known_images else None,
    )
    truth = ground_truth_of(images, encoder, made, torch.argsort(names))
    return observation, replace(truth, known_order=order if threat.known_images else None)


def observe_pairs(
    images: ImageTable,
    public: ImageTable | None,
    encoder: InstanceEncoder,
    threat: ThreatModel,
    *,
    shadow: ImageTable | None = None,
    rounds: int = 1,
) -> tuple[PairObservation, GroundTruth]:
    """Pair ``images`` at random, and encode one of each pair, drawn with probability one half.

    Arguments and errors are those of `observe`; in each of the ``rounds``, every image is in at
    most one pair. All encodings are of one data set: partners are among all images.
    """
    require_classes(images)
    half = len(images) // 2
    order = np.concatenate(
        [random_permutation(len(images))[: 2 * half].reshape(half, 2) for _ in range(rounds)]
    )
    second = SecretRandom().integers(2, (len(order),))
    made = _encoded(encoder, images, public, order[np.arange(len(order)), second])
    observation = PairObservation(
        encoder,
        images.mean,
        images.std,
        threat,
        torch.from_numpy(images.normalized())[torch.from_numpy(order)],
        made.encoded.images,
        _labels(made.encoded.labels, threat),
        public=_granted_public(threat, public, None, images),
        shadow=_required(shadow, "shadow images", images) if threat.shadow else None,
    )
    truth = ground_truth_of(images, encoder, made, torch.arange(len(images)))
    return observation, replace(truth, second=torch.from_numpy(second).bool())


def _encoded(
    encoder: InstanceEncoder,
    images: ImageTable,
    public: ImageTable | None,
    rows: NDArray[np.int64],
    augmentation: Augmentation | None = None,
) -> KnownKeyEncodings:
    """SECRET: encodings of the ``rows`` of ``images``, with the images that are in each.

    Raises:
        InstaHideError: another encoder than a scheme would have to move images.
    """
    pool = public if encoder.uses_public else None
    if isinstance(encoder, Scheme):
        return encode_with_known_keys(encoder, images, pool, rows, augmentation)
    if augmentation:
        raise InstaHideError(
            f"{encoder.name} does not crop or flip images.", "Leave out the augmentation."
        )
    made = TableEncoder(encoder, images, pool).encode_with_rows(rows)
    # Other encoders have no mask.
    unmasked = np.zeros(made.images.shape, bool)
    return KnownKeyEncodings(
        Encoded(made.images, made.labels), made.rows, made.coefficients, unmasked
    )


def ground_truth_of(
    images: ImageTable, encoder: InstanceEncoder, made: KnownKeyEncodings, of_group: Tensor
) -> GroundTruth:
    """SECRET: the ground truth of the encodings ``made`` of ``images``.

    Raises:
        DataError: the labels of the images are not classes.
    """
    require_classes(images)
    return GroundTruth(
        torch.from_numpy(images.normalized()),
        torch.from_numpy(made.partners),
        torch.from_numpy(np.ascontiguousarray(made.coefficients)),
        encoder.private_k,
        torch.from_numpy(images.labels),
        of_group,
        torch.from_numpy(made.negated),
        groups=group_numbers(images),
        moves=None if made.moves is None else torch.from_numpy(made.moves.astype(np.int64)),
    )


def require_known(values: Tensor | None) -> Tensor:
    """``values`` of the ground truth, which the observation implies."""
    if values is None:
        raise ValueError("the ground truth is of another observation")
    return values


def require_classes(images: ImageTable) -> None:
    """Check that the labels of ``images`` are classes, which the attackers take labels for.

    Raises:
        DataError: they are findings or values.
    """
    if images.task != "single-label":
        raise DataError(
            f"The labels of the images are {images.task}. The attacks take labels for classes, and "
            "would find less than labels reveal.",
            "Audit the same images with classes, such as one for each range of values or for each "
            "combination of findings (`label_classes.findings_as_classes`): that reveals more.",
        )


def group_numbers(images: ImageTable) -> Tensor | None:
    """(N,) int64 numbers, equal for ``images`` of one group; None if there are no groups."""
    ids = images.group_ids
    return None if ids is None else torch.from_numpy(ids)


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
        return None if public is None else public.with_pixels_like(images).normalized_like(images)
    return _required(similar, "images like the public ones", images)


def _required(table: ImageTable | None, what: str, images: ImageTable) -> ImageTable:
    if table is None:
        raise InstaHideError(
            f"The threat model grants the attacker {what}, but there are none.",
            "Give some, or take them out of the threat model.",
        )
    return table.with_pixels_like(images).normalized_like(images)

"""Encodings whose images were mirrored at random, attacked together with their mirror images.

The mirror image of an encoding is an encoding of mirrored images. An attack on all encodings and
their mirror images therefore sees each private image in two versions, both in as many encodings as
there would be without mirroring. Its results are two images for each private one, which are then
merged. Which version is the original, nobody can know.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from instahide.attacks.base import AssignedImages, EncodingObservation, require
from instahide.encryption.augmentation import Augmentation


def with_mirror_images(observation: EncodingObservation) -> EncodingObservation:
    """``observation`` of the n encodings and, after them, their n mirror images."""
    encodings, labels = observation.encodings, observation.labels
    return replace(
        observation,
        encodings=torch.cat([encodings, encodings.flip(-1)]),
        labels=None if labels is None else torch.cat([labels, labels]),
        augmentation=Augmentation(observation.augmentation.padding),
    )


def merge_mirror_images(found: AssignedImages, least: float) -> AssignedImages:
    """What was ``found`` in n encodings and their mirror images, as a finding in the encodings.

    Of two images that are the mirror images of each other, the one of higher confidence is kept.

    Args:
        found: images that were found in all encodings.
        least: images with at least this confidence are counted as recovered.
    """
    half = len(found.assignment) // 2
    pairs = mirror_pairs(found.assignment[:half], found.assignment[half:], len(found.images))
    confidence = require(found.confidence)
    kept = pairs.gather(1, confidence[pairs].argmax(dim=1, keepdim=True))[:, 0]
    place = torch.full((len(found.images) + 1,), -1)  # The last one is for no image, -1.
    place[pairs] = torch.arange(len(pairs))[:, None].expand_as(pairs)
    sure = confidence[kept]
    figures = {
        "groups": float(len(kept)),
        "recovered": float((sure >= least).sum()),
        "mean_confidence": float(sure.mean()),
    }
    return AssignedImages(
        found.images[kept],
        place[found.assignment[:half]],
        found.coefficients[:half],
        sure,
        statistics={**found.statistics, **figures},
    )


def mirror_pairs(members: Tensor, mirrored: Tensor, images: int) -> Tensor:
    """(p, 2) pairs of images that appear in the same encodings, one of them mirrored.

    The pairs that appear together most often come first; images that remain are paired in order,
    and a last one with itself.

    Args:
        members: (n, k) images of each encoding.
        mirrored: (n, k) images of its mirror image.
        images: number of images.
    """
    one = members[:, :, None].expand(-1, -1, mirrored.shape[1]).flatten()
    other = mirrored[:, None, :].expand(-1, members.shape[1], -1).flatten()
    keys = torch.minimum(one, other) * images + torch.maximum(one, other)
    together, counts = torch.unique(keys, return_counts=True)
    free = set(range(images))
    pairs = []
    for key in together[counts.argsort(descending=True, stable=True)].tolist():
        pair = divmod(key, images)
        if pair[0] != pair[1] and free.issuperset(pair):
            free.difference_update(pair)
            pairs.append(pair)
    left = sorted(free)
    pairs += zip(left[::2], left[1::2], strict=False)
    if len(left) % 2:
        pairs.append((left[-1], left[-1]))
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)

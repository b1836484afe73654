"""Matches recovered images to their originals, and compares them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from instahide.attacks.base import (
    AssignedImages,
    EncodingObservation,
    Finding,
    InvertedUpdate,
    Observation,
    PredictedMasks,
    PublicMatches,
    RecoveredImages,
)
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics
from instahide.audit.scoring.blank_baseline import best_blank, counts_as_recovered
from instahide.audit.scoring.reconstruction import (
    Moments,
    renderings,
    score_reconstruction,
    to_pixels,
)
from instahide.audit.scoring.registration import registered
from instahide.data.duplicates.content_hash import duplicate_row_ids
from instahide.utils.optional_deps import requires_extra


class RecoveredGroups(NamedTuple):
    """The groups, such as patients, of recovered images.

    Attributes:
        numbers: (m,) int64 the group of the private image that each was matched to.
        recognized: (m,) bool, whether the recovered image is more similar to an image of this group
            than to every image of another; for published encodings, also than these are.
        total: number of groups of the private images.
    """

    numbers: Tensor
    recognized: Tensor
    total: int

    @classmethod
    def of(cls, groups: Tensor | None, nearest: Tensor, rows: Tensor) -> RecoveredGroups | None:
        """Of recovered images that are ``nearest`` (m,) to some images and belong to ``rows`` (m,).

        ``groups``: (N,) the group of each private image; None without groups.
        """
        if groups is None:
            return None
        numbers = groups[rows]
        return cls(numbers, groups[nearest] == numbers, len(torch.unique(groups)))


@dataclass(frozen=True, eq=False, repr=False)
class Matches:
    """Recovered images, each matched to a private image.

    Attributes:
        rows: (m,) int64 row of the private image.
        recovered: (m, C, H, W) from 0 to 1, under the best affine map of each channel; for images
            with an assignment to encodings, in the better of their `renderings`.
        originals: (m, C, H, W) from 0 to 1; absolute values if the attack recovers only those.
        ssim: (m,) SSIM of recovered image and original.
        recognized: (m,) bool, whether the recovered image is more similar to its original than to
            any other private image; for published encodings, also whether it is more similar to its
            original than every other private image is.
        pictures: (N,) int64 the picture of each private image that could be recovered: a number
            that is equal for equal images. Who recovers a picture recovers all images that show it.
        groups: the groups of the private images; None if there are none.
    """

    rows: Tensor
    recovered: Tensor
    originals: Tensor
    ssim: Tensor
    recognized: Tensor
    pictures: Tensor
    groups: RecoveredGroups | None = None

    @property
    def total(self) -> int:
        """The number of private images that could be recovered."""
        return len(self.pictures)

    @cached_property
    def blank(self) -> Tensor:
        """(m,) the SSIM of the best blank picture to each original."""
        return self._by_row(best_blank)

    @cached_property
    def mean_colour(self) -> Tensor:
        """(m,) the SSIM of each original's mean color, to which the affine map turns noise."""
        return self._by_row(_ssim_of_mean_colour)

    @property
    def recognizable(self) -> int:
        """The number of private images that were recovered and identified at least once."""
        counted = self.recognized & counts_as_recovered(self.ssim, self.blank)
        found = self.pictures[self.rows[counted]]
        return int(torch.isin(self.pictures, found).sum())

    @property
    def groups_identified(self) -> int:
        """The number of groups of which an image was recovered and known to be of this group."""
        if self.groups is None:
            return 0
        counted = self.groups.recognized & counts_as_recovered(self.ssim, self.blank)
        return len(set(self.groups.numbers[counted].tolist()))

    def best_of_each(self) -> Tensor:
        """Indices of the best recovered image of each private image, best first."""
        order = self.ssim.argsort(descending=True, stable=True)
        seen: set[int] = set()
        places = []
        for place in order.tolist():
            row = int(self.rows[place])
            if row not in seen:
                seen.add(row)
                places.append(place)
        return torch.tensor(places, dtype=torch.int64)

    def summary(self) -> dict[str, float]:
        """Plain numbers; ``ssim_mean`` is over all recovered images, including repeated ones."""
        best = self.ssim[self.best_of_each()]
        return {
            "images_recognizable": float(self.recognizable),
            "images_sought": float(self.total),
            "images_recovered": float(len(self.rows)),
            "ssim_mean": float(self.ssim.mean()),
            "ssim_mean_of_best": float(best.mean()),
            "ssim_best": float(best.max()),
            "ssim_of_nothing": float(self.mean_colour.mean()),
            "ssim_of_blank": float(self.blank.mean()),
            "identified": float(self.recognized.float().mean()),
        } | self._of_groups()

    def _of_groups(self) -> dict[str, float]:
        if self.groups is None:
            return {}
        return {
            "groups_identified": float(self.groups_identified),
            "groups_sought": float(self.groups.total),
        }

    def _by_row(self, figure: Callable[[Tensor], Tensor]) -> Tensor:
        """(m,) the ``figure`` of each original, computed once per private image."""
        names, inverse = torch.unique(self.rows, return_inverse=True)
        first = torch.zeros(len(names), dtype=torch.int64)
        first[inverse] = torch.arange(len(self.rows))
        return figure(self.originals[first])[inverse]


def match_to_truth(found: Finding, observation: Observation, truth: GroundTruth) -> Matches | None:
    """Recovered images matched by the ``truth`` of their encodings; None if there are none."""
    if isinstance(found, AssignedImages) and len(found.images):
        matched = score_reconstruction(found, truth, observation.mean, observation.std)
        pictures = pictures_of(truth.images)
        nearest = _nearest(matched.images, truth.images, matched.rows, pictures)
        return Matches(
            matched.rows,
            matched.shown,
            matched.originals,
            matched.ssim,
            nearest == matched.rows,
            pictures,
            RecoveredGroups.of(truth.groups, nearest, matched.rows),
        )
    images = recovered_images(found)
    if images is None or not len(images.images):
        return None
    candidates = truth.images.abs() if images.absolute else truth.images
    rows = originals_of(images, observation, truth)
    originals = to_unit_range(candidates)[rows]
    shown = registered(images.images, candidates[rows], truth)
    return _compare(shown, candidates, originals, rows, truth.groups)


def match_in_order(images: Tensor, observation: Observation, truth: GroundTruth) -> Matches:
    """Images (N, C, H, W) matched to the private images in the order of the ``truth``."""
    moments = observation.mean, observation.std
    originals, rows = to_pixels(truth.images, *moments), torch.arange(len(images))
    return _compare(images, truth.images, originals, rows, truth.groups, moments)


def recovered_images(found: Finding) -> RecoveredImages | None:
    """The images in ``found`` that belong to encodings; None if there are none.

    Images from an update must be in the order of its encodings; see `match_order`.
    """
    match found:
        case RecoveredImages():
            return found
        case PredictedMasks():
            return found.unmasked
        case PublicMatches():
            return found.remainder
        case InvertedUpdate():
            return RecoveredImages(found.images, torch.arange(len(found.images)))
        case _:
            return None


def originals_of(found: RecoveredImages, observation: Observation, truth: GroundTruth) -> Tensor:
    """(m,) rows of the private images to which the recovered images belong."""
    of = found.target_ids
    if found.dominant:
        private = slice(0, truth.private_k)
        largest = truth.coefficients[of, private].argmax(dim=1, keepdim=True)
        return truth.partners[of, private].gather(1, largest)[:, 0]
    grouped = isinstance(observation, EncodingObservation) and observation.groups is not None
    return truth.group_targets[of] if grouped else truth.partners[of, 0]


def to_unit_range(images: Tensor) -> Tensor:
    """``images`` mapped to 0..1 by one affine map for all of them."""
    low, high = images.amin(), images.amax()
    return (images - low) / (high - low).clamp(min=1e-12)


def match_to_nearest(
    found: Finding,
    private: Tensor,
    pixels: Tensor,
    groups: Tensor | None = None,
    moments: Moments | None = None,
) -> Matches | None:
    """Recovered images matched one-to-one to the most similar private images.

    For published encodings, whose keys are unknown, so that images cannot be matched by the
    encodings that contain them.

    Args:
        found: finding of an attack on published encodings.
        private: (N, C, H, W) all private images, normalized.
        pixels: (N, C, H, W) the same images from 0 to 1.
        groups: (N,) the group of each image; None without groups.
        moments: mean and standard deviation of the normalization; with them, images that have an
            assignment to encodings are compared in the better of their `renderings`.
    """
    images = found if isinstance(found, AssignedImages) else recovered_images(found)
    if images is None or not len(images.images):
        return None
    absolute = isinstance(images, RecoveredImages) and images.absolute
    with requires_extra("SciPy", "audit"):
        from scipy.optimize import linear_sum_assignment
    candidates = private.abs() if absolute else private
    likeness = metrics.likeness(images.images, candidates)
    places, rows = map(torch.from_numpy, linear_sum_assignment(likeness.numpy(), maximize=True))
    shown = candidates / candidates.amax() if absolute else pixels
    known = moments if isinstance(images, AssignedImages) else None
    matches = _compare(images.images[places], candidates, shown[rows], rows, groups, known)
    # They were matched by similarity, so similarity alone proves nothing.
    recognized = matches.recognized & (matches.ssim > likeness_of_others(candidates, shown)[rows])
    named = matches.groups
    if named is not None:
        others = likeness_of_others(candidates, shown, groups)[rows]
        named = named._replace(recognized=named.recognized & (matches.ssim > others))
    return replace(matches, recognized=recognized, groups=named)


def likeness_of_others(private: Tensor, pixels: Tensor, groups: Tensor | None = None) -> Tensor:
    """(N,) the SSIM of each private image with the most similar *other* private image.

    A lower SSIM of a recovered image does not show that it was recovered.

    Args:
        private: (N, C, H, W) normalized images.
        pixels: (N, C, H, W) the same images from 0 to 1.
        groups: (N,) the group of each image; with it, others are images of other groups. Equal
            images are never others.
    """
    pictures = pictures_of(private)
    same = pictures[:, None] == pictures
    if groups is not None:
        same |= groups[:, None] == groups
    if same.all():
        return torch.zeros(len(private))
    other = pixels[metrics.likeness(private, private).masked_fill(same, 0).argmax(dim=1)]
    return metrics.ssim(metrics.best_affine(other, pixels), pixels)


def _ssim_of_mean_colour(originals: Tensor) -> Tensor:
    mapped = metrics.best_affine(torch.zeros_like(originals), originals)
    return metrics.ssim(mapped, originals)


def pictures_of(images: Tensor) -> Tensor:
    """(N,) int64 numbers of the ``images`` (N, ...), equal for equal images."""
    return torch.from_numpy(duplicate_row_ids(images.cpu().numpy()))


def _nearest(images: Tensor, candidates: Tensor, rows: Tensor, pictures: Tensor) -> Tensor:
    """(m,) the most similar of the ``candidates``; that of ``rows`` if it shows the same."""
    nearest = metrics.nearest(images, candidates)
    return torch.where(pictures[nearest] == pictures[rows], rows, nearest)


def _compare(
    images: Tensor,
    candidates: Tensor,
    originals: Tensor,
    rows: Tensor,
    groups: Tensor | None,
    moments: Moments | None = None,
) -> Matches:
    """Images compared with their ``originals``, the ``rows`` of the ``candidates``.

    With the ``moments`` of the normalization, the better of their `renderings` is compared; without
    them, that under the best affine map.
    """
    affine = [metrics.best_affine(images, originals)]
    ways = affine if moments is None else renderings(images, originals, *moments)
    shown, ssim = metrics.best_rendering(ways, originals)
    pictures = pictures_of(candidates)
    nearest = _nearest(images, candidates, rows, pictures)
    known = RecoveredGroups.of(groups, nearest, rows)
    return Matches(rows, shown, originals, ssim, nearest == rows, pictures, known)

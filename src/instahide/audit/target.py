"""`AuditTarget`: private images, how they were encrypted, and what was published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.audit.ground_truth import require_classes
from instahide.data import ImageTable
from instahide.data.image_source import has_repeats
from instahide.encryption.encoders.base import InstanceEncoder, Published
from instahide.encryption.encoders.instahide import scheme_of
from instahide.encryption.guarantees.prior import LEAST_IMAGES, estimate_prior
from instahide.encryption.guarantees.statements import Guarantees
from instahide.encryption.sampling.partner_pools import PartnerPools, pools_of_tables
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError

#: Largest numbers of private images, encodings of each, and encodings in total that are made for an
#: audit, such that attacks take minutes.
MOST_IMAGES, MOST_COPIES, MOST_ENCODINGS = 100, 100, 5000
#: What sentences call the kinds of targets.
CALLED = {"run": "run", "encodings": "folder"}


@dataclass(frozen=True, eq=False, repr=False)
class PublishedEncodings:
    """Published encodings, whose keys no longer exist.

    Attributes:
        encodings: (n, C, H, W) float32.
        labels: (n, classes) float32; None if they are not of classes.
    """

    encodings: Tensor
    labels: Tensor | None


@dataclass(frozen=True, eq=False, repr=False)
class AuditTarget:
    """The target of an audit.

    Attributes:
        name: folder of the target, as the user named it.
        kind: a training run or a folder of encodings.
        source: source of the images, as the user named it.
        images: all private images, under the normalization of their encryption.
        public: the public pool, if the scheme uses one.
        encoder: how the images were encrypted: a scheme, or another encoder.
        copies: published encodings of each image.
        others: images like the private ones, for attackers who train networks.
        network: the network that a run has trained on the encodings.
        published: the published encodings, if available and not too many.
        withheld: why ``published`` is not attacked; None if it is.
        settings: further facts for the report.
        limited: whether an exposure limit was set, or some images may be drawn more often for other
            reasons that the images themselves do not show.
    """

    name: str
    kind: Literal["run", "encodings"]
    source: str
    images: ImageTable
    public: ImageTable | None
    encoder: InstanceEncoder
    copies: int
    others: ImageTable | None = None
    network: nn.Module | None = None
    published: PublishedEncodings | None = None
    withheld: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    limited: bool = False

    def __post_init__(self) -> None:
        require_classes(self.images)
        if len(self.images) < self.encoder.private_k or self.copies < 1:
            raise DataError(
                f"{self.source} holds {len(self.images)} images; a mix is of "
                f"{self.encoder.private_k} private ones.",
                "Name the images that the encodings were made of with `images=`.",
            )

    def __repr__(self) -> str:
        return (
            f"AuditTarget({self.name!r}, {len(self.images)} images, {self.copies} encodings each)"
        )

    @property
    def exposures(self) -> float:
        """The mean number of encodings that contain an image, encrypted or as a partner.

        At most so many if the public pool holds private images, which are drawn from there too.
        """
        each = float(self.encoder.private_k)
        if self._pools is not None and isinstance(self.encoder, Scheme):
            each += float(self._pools.public_draws(self.encoder).sum())
        return round(self.copies * each, 9)

    @property
    def is_scheme(self) -> bool:
        """Whether the encoder is InstaHide, or a variant that a `Scheme` describes."""
        return isinstance(self.encoder, Scheme)

    @property
    def scheme(self) -> Scheme:
        """The scheme; a `SchemeError` for another encoder."""
        return scheme_of(self.encoder)

    @property
    def groups(self) -> int:
        """The number of groups of the images; 0 if there are none."""
        groups = self.images.group_ids
        return 0 if groups is None else len(np.unique(groups))

    @cached_property
    def _pools(self) -> PartnerPools | None:
        """The pools of the encoder's partners; None if all pictures are distinct."""
        return pools_of_tables(self.images, self.public if self.encoder.uses_public else None)

    @cached_property
    def uneven(self) -> str | None:
        """Why images are drawn more often than bounds assume, or may be; None if they are not."""
        if self._pools is not None and self._pools.private_in_public:
            return "as the public pool holds private images"
        if has_repeats(self.images):
            return "as some images are there twice or of one group"
        if self.limited:
            return "as some images may be in more encodings than others"
        return None

    @cached_property
    def guarantees(self) -> Guarantees:
        """Bounds for the published encodings, with epsilon at `privacy.DELTA`.

        Unknown if some images or groups may be drawn more often than the bounds assume, see
        `uneven`. Other encoders than schemes have no more than an epsilon, which is their own, and
        infinite without a guarantee.
        """
        images = self.images
        if not isinstance(self.encoder, Scheme):
            published = Published(len(images), images.shape, images.std, self.copies)
            uneven = self.uneven is not None
            return Guarantees.of_encoder(self.encoder, published, uneven=uneven)
        noise = bool(self.encoder.noise)
        if noise and self.uneven:
            return Guarantees(noise)
        return Guarantees.beforehand(self.encoder, images.shape, images.std, copies=self.copies)

    @cached_property
    def prior_statement(self) -> str | None:
        """The error floor of any reconstruction, with a prior estimated from the public images.

        None without noise, or without enough public images.
        """
        loss, public = self.guarantees.loss, self.public
        if loss is None or math.isinf(loss) or public is None or len(public) < LEAST_IMAGES:
            return None
        alone = f" from this {CALLED[self.kind]} alone"
        return estimate_prior(public).statement(loss, self.images.std, alone)

    def known_key_target(self) -> tuple[ImageTable, int]:
        """The images that are encrypted for the audit, and the encodings of each.

        They are evenly spaced; of groups, whole ones, so that an attacker has all of their images.
        """
        count = min(len(self.images), MOST_IMAGES)
        groups = self.images.group_ids
        if groups is None:
            chosen = np.linspace(0, len(self.images) - 1, count).astype(np.int64)
        else:
            chosen = _of_whole_groups(groups, count, self.encoder.private_k)
        each = min(self.copies, MOST_COPIES, MOST_ENCODINGS // len(chosen))
        return self.images.subset(chosen), each

    def observation_of_published(self) -> EncodingObservation | None:
        """The observation of the published encodings; None if they are not attacked."""
        if self.published is None:
            return None
        return EncodingObservation(
            self.encoder,
            self.images.mean,
            self.images.std,
            ThreatModel(
                labels="none" if self.published.labels is None else "soft",
                encodings_per_image=self.copies,
            ),
            self.published.encodings,
            self.published.labels,
            public=None
            if self.public is None
            else self.public.with_pixels_like(self.images).normalized_like(self.images),
        )

    def pixels(self) -> Tensor:
        """(N, C, H, W) or (N, C, D, H, W) float32 private images from 0 to 1."""
        low, high = self.images.value_range
        values = (self.images.pixels.astype(np.float32) - low) / (high - low)
        return torch.from_numpy(np.clip(values, 0, 1, dtype=np.float32))


def _of_whole_groups(groups: NDArray[np.int64], count: int, least: int) -> NDArray[np.int64]:
    """About ``count`` rows of evenly spaced ``groups`` (N,), at least of ``least`` groups."""
    numbers, sizes = np.unique(groups, return_counts=True)
    few = max(least, int(count / sizes.mean()))
    spaced = np.linspace(0, len(numbers) - 1, min(few, len(numbers))).astype(np.int64)
    rows = np.flatnonzero(np.isin(groups, numbers[spaced]))
    if len(rows) <= count:
        return rows
    # Of large groups, the first images of each, in turn.
    turn = np.zeros(len(rows), np.int64)
    for number in np.unique(groups[rows]):
        in_group = groups[rows] == number
        turn[in_group] = np.arange(int(in_group.sum()))
    return np.sort(rows[np.argsort(turn, kind="stable")[:count]])

"""What an audit is of: images, the way they were encrypted, and what went out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.data import ImageTable
from instahide.data.image_source import has_repeats
from instahide.encryption.privacy import epsilon_upper_bound
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError

#: Private images of a rehearsal, encodings of each, and encodings in all, at most: what the attacks
#: get through in minutes.
MOST_IMAGES, MOST_COPIES, MOST_ENCODINGS = 100, 100, 5000


@dataclass(frozen=True, eq=False, repr=False)
class Published:
    """Encodings as they went out, of which nobody knows the keys any more.

    Attributes:
        encodings: (n, C, H, W) float32.
        labels: (n, classes) float32.
    """

    encodings: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class AuditTarget:
    """What is audited.

    Attributes:
        name: where it lies, as the user named it.
        kind: a training run's folder, or one of encodings.
        source: of the images, as the user named it.
        images: all private images, under the normalization that they were encrypted with.
        public: the pool, where the scheme mixes some in.
        scheme: how they were encrypted.
        copies: encodings of each image that went out.
        others: images of the private ones' kind, none of them private, for attackers who train.
        network: that a run has trained on the encodings.
        published: the encodings themselves, where they are at hand and not too many.
        withheld: why ``published`` is not attacked, where it is not.
        settings: what else a reader of the report should know.
        limited: whether an exposure limit was set.
    """

    name: str
    kind: Literal["run", "encodings"]
    source: str
    images: ImageTable
    public: ImageTable | None
    scheme: Scheme
    copies: int
    others: ImageTable | None = None
    network: nn.Module | None = None
    published: Published | None = None
    withheld: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    limited: bool = False

    def __post_init__(self) -> None:
        if len(self.images) < self.scheme.private_k or self.copies < 1:
            raise DataError(
                f"{self.source} holds {len(self.images)} images; a mix is of "
                f"{self.scheme.private_k} private ones.",
                "Name the images that the encodings were made of with `images=`.",
            )

    def __repr__(self) -> str:
        return (
            f"AuditTarget({self.name!r}, {len(self.images)} images, {self.copies} encodings each)"
        )

    @property
    def exposures(self) -> float:
        """Encodings that an image has gone into, on average, as the first or as a partner."""
        return self.copies * self.scheme.private_k

    @property
    def epsilon(self) -> float | None:
        """Of what went out, at most, at `privacy.DELTA`; infinite without noise.

        None under an exposure limit and where images are there more than once: some are then drawn
        more often than the bound allows for.
        """
        images = self.images
        if self.scheme.noise and (self.limited or has_repeats(images)):
            return None
        return epsilon_upper_bound(self.scheme, images.shape, images.std, copies=self.copies)

    def known_key_target(self) -> tuple[ImageTable, int]:
        """The images that are encrypted anew, evenly spaced among all, and encodings of each."""
        count = min(len(self.images), MOST_IMAGES)
        chosen = np.linspace(0, len(self.images) - 1, count).astype(np.int64)
        return self.images.subset(chosen), min(self.copies, MOST_COPIES, MOST_ENCODINGS // count)

    def observation_of_published(self) -> EncodingObservation | None:
        """What an attacker sees of the encodings themselves."""
        if self.published is None:
            return None
        return EncodingObservation(
            self.scheme,
            self.images.mean,
            self.images.std,
            ThreatModel(encodings_per_image=self.copies),
            self.published.encodings,
            self.published.labels,
            public=None if self.public is None else self.public.normalized_like(self.images),
        )

    def pixels(self) -> Tensor:
        """(N, C, H, W) float32 private images from 0 to 1."""
        return torch.from_numpy(self.images.pixels.astype(np.float32) / 255)

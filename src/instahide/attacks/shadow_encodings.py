"""Shadow encodings: the attacker's own images under its own keys, to train networks on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.any_encoder.observation import PairObservation
from instahide.attacks.base import EncodingObservation
from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme

#: Private images and encodings of a batch, such that about one pair in twelve shares an image.
IMAGES, ENCODINGS = 48, 192


class ShadowBatch(NamedTuple):
    """Encodings with their images and coefficients.

    ``encodings`` (n, C, H, W); ``images`` (m, C, H, W), normalized; ``coefficients`` (n, m) of the
    private images in each encoding, up to a factor if the scheme's labels are renormalised.
    """

    encodings: Tensor
    images: Tensor
    coefficients: Tensor

    @property
    def shares(self) -> Tensor:
        """(n, n) bool, whether two encodings share an image."""
        held = (self.coefficients > 0).float()
        return held @ held.T > 0


def missing_shadow(observation: EncodingObservation | PairObservation) -> str | None:
    """Why an attacker cannot make shadow encodings; None if it can."""
    if observation.shadow is None:
        return "The attacker has no shadow images (images like the private ones)."
    if len(observation.shadow) < max(2, observation.encoder.private_k):
        return "The attacker has too few shadow images (images like the private ones) for one mix."
    return None


def shadow_batches(
    shadow: ImageTable,
    scheme: Scheme,
    *,
    public: ImageTable | None = None,
    images: int = IMAGES,
    encodings: int = ENCODINGS,
) -> Iterator[ShadowBatch]:
    """An endless iterator of batches, each of other images under other keys.

    Every image is its own class, so that soft labels give the images of a mix.

    Args:
        shadow: images like the private ones; half of them are mirrored, left to right.
        scheme: scheme of the attacked encodings.
        public: public images, if the scheme uses them; ``shadow`` if there are none.
        images: largest number of private images of a batch.
        encodings: encodings of a batch, which encrypt the images in turn.
    """
    generator = np.random.default_rng()
    count = min(images, len(shadow))
    names = tuple(map(str, range(count)))
    pool = (public or shadow) if scheme.public_k else None
    while True:
        chosen = generator.choice(len(shadow), count, replace=False)
        table = replace(
            shadow.subset(chosen), labels=np.arange(count, dtype=np.int64), classes=names
        )
        flipped = generator.random(count) < 0.5
        table.pixels[flipped] = table.pixels[flipped, :, :, ::-1]
        made = Encoder(scheme, table, pool).encode(np.arange(encodings) % count)
        yield ShadowBatch(made.images, torch.from_numpy(table.normalized()), made.labels)

"""Shadow encodings: the attacker's own images under keys of its own, for networks to learn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.base import EncodingObservation
from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme

#: Private images of a batch and encodings of them: about one pair in twelve shares an image.
IMAGES, ENCODINGS = 48, 192


class ShadowBatch(NamedTuple):
    """Encodings and what is in them.

    ``encodings`` (n, C, H, W); ``images`` (m, C, H, W), normalized; ``coefficients`` (n, m) of the
    private ones in each encoding, but for a factor of it if the scheme's labels are renormalised.
    """

    encodings: Tensor
    images: Tensor
    coefficients: Tensor

    @property
    def shares(self) -> Tensor:
        """(n, n) which encodings share an image."""
        held = (self.coefficients > 0).float()
        return held @ held.T > 0


def missing_shadow(observation: EncodingObservation) -> str | None:
    """Return why an attacker cannot make shadow encodings, if one cannot."""
    if observation.shadow is None:
        return "The attacker has no images of the private images' kind to learn from."
    if len(observation.shadow) < max(2, observation.scheme.private_k):
        return "The attacker has too few images of the private images' kind for one mix."
    return None


def shadow_batches(
    shadow: ImageTable,
    scheme: Scheme,
    *,
    public: ImageTable | None = None,
    images: int = IMAGES,
    encodings: int = ENCODINGS,
) -> Iterator[ShadowBatch]:
    """Batches without end, each of other images under other keys.

    Every image is a class of its own, so that the soft labels say which images are in a mix.

    Args:
        shadow: images of the private ones' kind; half of them are mirrored, left to right.
        scheme: that the attacked encodings were made with.
        public: what it mixes in, where it does; ``shadow`` itself if there is nothing else.
        images: private images of a batch, at most.
        encodings: of a batch; they begin with each of the images in turn.
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

"""The attacker's own encodings of its own images, under keys of its own, for any encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.any_encoder.observation import PairObservation
from instahide.attacks.base import EncodingObservation, require
from instahide.data import ImageTable
from instahide.encryption.encoders.base import EncoderInput
from instahide.encryption.encoders.checked_calls import encode_checked, naming_failures
from instahide.encryption.encoders.secret_random import SecretRandom

#: Images of a batch.
IMAGES = 64


class OwnBatch(NamedTuple):
    """Encodings of m images under one new key of a data set.

    ``encodings`` (n, ...); ``images`` (m, C, H, W), normalized; ``shares`` (n, m) the coefficient
    of each image in each encoding; ``encoded`` (n,) the image that each encodes.
    """

    encodings: Tensor
    images: Tensor
    shares: Tensor
    encoded: Tensor


def own_batches(
    observation: EncodingObservation | PairObservation, copies: int, images: int = IMAGES
) -> Iterator[OwnBatch]:
    """An endless iterator of batches, each of other images under other keys.

    The attacker does not know the key of the attacked data set, so every batch has a key of its
    own: what networks learn from many batches holds for any key.

    Args:
        observation: what the attacker sees: the encoder, shadow images and the public pool.
        copies: encodings of each image.
        images: largest number of images of a batch. Half of them are mirrored, left to right.
    """
    shadow, encoder = require(observation.shadow), observation.encoder
    # The attacker's choice of images needs no secret randomness.
    generator = np.random.default_rng()
    count, random = min(images, len(shadow)), SecretRandom("attacker")
    pool = None
    if encoder.uses_public:
        pool = (observation.public or shadow).with_pixels_like(shadow).normalized_like(shadow)
        _ = pool.content_ids  # Computed once, instead of for each batch.
    rows = np.tile(np.arange(count), copies)
    while True:
        source = EncoderInput(_some(shadow, count, generator), pool)
        with naming_failures(encoder, "draw_key"):
            key = encoder.draw_key(source.private.shape, random)
        made = encode_checked(encoder, source, rows, key, random)
        shares = torch.zeros(len(rows), count)
        shares.scatter_add_(1, torch.from_numpy(made.rows), torch.from_numpy(made.coefficients))
        images_of = torch.from_numpy(source.private.normalized())
        yield OwnBatch(made.images, images_of, shares, torch.from_numpy(made.rows[:, 0].copy()))


def _some(shadow: ImageTable, count: int, generator: np.random.Generator) -> ImageTable:
    """``count`` of the ``shadow`` images, half of them mirrored."""
    chosen = shadow.subset(generator.choice(len(shadow), count, replace=False))
    flipped = generator.random(count) < 0.5
    pixels = chosen.pixels.copy()
    pixels[flipped] = pixels[flipped, ..., ::-1]
    return replace(chosen, pixels=pixels, sources=None)

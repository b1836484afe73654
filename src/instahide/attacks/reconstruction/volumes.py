"""Volumes as images: the slices along the first spatial axis become channels.

All slices of an encoded volume share the same private images and the same coefficients, and have
masks of their own. This is also true of the channels of an image. So a volume (C, D, H, W) is
attacked as an image with C * D channels: features of all slices find the images of an encoding and
their coefficients, and every slice is recovered with the same coefficients.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from instahide.attacks.base import EncodingObservation
from instahide.data import ImageTable


def as_slices(observation: EncodingObservation) -> EncodingObservation:
    """The same observation, with encodings (n, C * D, H, W) and images of that shape.

    Images of two dimensions are returned unchanged.
    """
    if observation.encodings.ndim == 4:
        return observation
    depth = observation.encodings.shape[2]
    known = observation.known_mixes
    return replace(
        observation,
        encodings=observation.encodings.flatten(1, 2),
        mean=_repeated(observation.mean, depth),
        std=_repeated(observation.std, depth),
        public=None if observation.public is None else _table(observation.public),
        shadow=None if observation.shadow is None else _table(observation.shadow),
        known_mixes=None if known is None else known.flatten(1, 2),
    )


def as_volumes(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(m, C, D, H, W) volumes of ``shape`` (C, D, H, W) from ``images`` (m, C * D, H, W)."""
    return images.reshape(len(images), *shape)


def _table(images: ImageTable) -> ImageTable:
    channels, depth, *plane = images.shape
    return replace(
        images,
        pixels=np.reshape(images.pixels, (len(images), channels * depth, *plane)),
        mean=_repeated(images.mean, depth),
        std=_repeated(images.std, depth),
    )


def _repeated(moments: tuple[float, ...], depth: int) -> tuple[float, ...]:
    """The moment of each channel, once for each of its slices."""
    return tuple(value for value in moments for _ in range(depth))

"""Planted encoders, of which it is known what attacks must find: everything, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from instahide.encryption.encoders.base import ImageEncoder
from instahide.encryption.encoders.secret_random import SecretRandom


@dataclass(frozen=True)
class Identity(ImageEncoder):
    """Publishes the images."""

    name: ClassVar[str] = "identity"
    title: ClassVar[str] = "The image itself"
    paper: ClassVar[str] = "none"

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return images.clone()


@dataclass(frozen=True)
class PureNoise(ImageEncoder):
    """Publishes noise that does not depend on the images."""

    name: ClassVar[str] = "pure-noise"
    title: ClassVar[str] = "Noise"
    paper: ClassVar[str] = "none"

    def transform(self, images: Tensor, key: Any, random: SecretRandom) -> Tensor:
        return torch.from_numpy(random.normal(tuple(images.shape))).float()

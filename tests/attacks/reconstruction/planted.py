"""Encodings and features in which the answer is planted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.reconstruction.pair_encoder import features
from instahide.attacks.reconstruction.recovery.coefficients import weights
from instahide.attacks.reconstruction.recovery.phase_retrieval import SignedEncodings
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.data import ImageTable
from tests.attacks.conftest import natural

IMAGES, ENCODINGS = 12, 600


class Planted:
    """Encodings of two images each out of twelve, and a third of the energy of public ones.

    Args:
        encodings: the number of encodings.
        offset: difference of the brightness of private images, and of public ones less.
    """

    def __init__(self, encodings: int = ENCODINGS, offset: float = 0.0) -> None:
        generator = np.random.default_rng(0)
        table = ImageTable.from_arrays(natural(IMAGES + 200, 0, 16))
        pixels = torch.from_numpy(table.normalized())
        # Photographs are alike in their channels.
        pixels = 0.3 * pixels + 0.7 * pixels.mean(dim=1, keepdim=True)
        self.images, public = pixels[:IMAGES] + offset, pixels[IMAGES:] - offset
        first = np.arange(encodings) % IMAGES
        second = (first + generator.integers(1, IMAGES, encodings)) % IMAGES
        self.members = torch.from_numpy(np.stack([first, second], axis=1))
        self.coefficients = torch.from_numpy(
            generator.uniform(0.2, 0.6, (encodings, 2)).astype(np.float32)
        )
        self.weights = weights(self.members, self.coefficients, IMAGES)
        self.mixes = SparseMixing.of(self.weights)
        self.shares = 1 - self.coefficients.sum(dim=1)[:, None, None, None]
        self.mixed = torch.einsum("nm,mchw->nchw", self.weights, self.images)
        others = torch.from_numpy(generator.integers(200, size=encodings))
        self.mix = self.mixed + self.shares * public[others]
        mask = generator.choice(np.float32([-1, 1]), self.mix.shape)
        self.encodings = self.mix * torch.from_numpy(mask)
        self.sizes = features.magnitudes(self.encodings)
        self.scale = self.encodings.square().mean().sqrt()
        self.public = public.mean(dim=(0, 2, 3)) / self.scale

    def signed(self, wrong: float = 0.2, public: Tensor | None = None) -> SignedEncodings:
        """Predicted signs, of which a share is ``wrong``, up to one sign for each encoding.

        Args:
            wrong: share of the pixels whose sign is wrong.
            public: (C,) mean of the public images; the right one by default.
        """
        generator = torch.Generator().manual_seed(4)
        errors = torch.rand(self.mix.shape, generator=generator) < wrong
        flips = torch.randint(2, (len(self.mix), 1, 1, 1), generator=generator)
        signs = 0.7 * self.mix.sign() * (1.0 - 2.0 * errors) * (1.0 - 2.0 * flips)
        return SignedEncodings(self.sizes, signs, self.public if public is None else public)


def likeness(found: Tensor, images: Tensor) -> Tensor:
    return torch.cosine_similarity(found.flatten(1), images.flatten(1), dim=1).abs()


def planted_features(planted: Planted, noise: float = 0.5) -> Tensor:
    """Features as an ideal encoder would give them: one direction an image, and noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(IMAGES, 200, generator=generator), dim=1)
    strange = torch.randn(ENCODINGS, 200, generator=generator) * noise / 200**0.5
    return features.standardised(planted.weights.square() @ directions * 4 + strange)


def planted_groups(planted: Planted) -> Tensor:
    """The 30 encodings that hold most of each image."""
    return planted.weights.topk(30, dim=0).indices.T


def right(members: Tensor, planted: Planted) -> float:
    """Share of the coefficients that were given to the right image."""
    hit = (members[:, :, None] == planted.members[:, None, :]).any(dim=1)
    return float((planted.coefficients * hit).sum() / planted.coefficients.sum())


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])

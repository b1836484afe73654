"""How much of each private image is in an encoding: from labels, from features, or from images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.reconstruction.recovery.phase_retrieval import Residue, expected
from instahide.attacks.reconstruction.recovery.sparse_mixing import ROWS
from instahide.encryption.scheme import Scheme

#: Rounds of signs and coefficients under given images.
ROUNDS = 4
#: Least coefficient that an image which is there is given.
LEAST = 0.01
#: How far guesses from features are drawn to the mean.
SHRINKAGE = 0.2


@dataclass(frozen=True, eq=False)
class CoefficientDistribution:
    """The law of a scheme's private coefficients, from a public simulation.

    Attributes:
        sorted: (q,) draws of one coefficient, in order.
        total: mean of their sum in one mix.
    """

    sorted: Tensor
    total: float

    @classmethod
    def of(cls, scheme: Scheme) -> CoefficientDistribution:
        """Simulated."""
        private = scheme.simulated_coefficients()[:, : scheme.private_k]
        draws = torch.from_numpy(np.sort(private.ravel())).float()
        return cls(draws, float(private.sum(axis=1).mean()))

    @property
    def mean(self) -> float:
        """Of one coefficient."""
        return float(self.sorted.mean())

    def matched(self, values: Tensor) -> Tensor:
        """``values`` (n, k) mapped by rank to this law."""
        ranks = values.flatten().argsort().argsort().reshape(values.shape)
        places = ranks * (len(self.sorted) - 1) // max(values.numel() - 1, 1)
        return self.sorted.to(values)[places]


def weights(members: Tensor, coefficients: Tensor, images: int) -> Tensor:
    """(n, images) from ``members`` (n, k), -1 for none, and ``coefficients``; 0 if not there."""
    empty = torch.zeros(len(members), images).to(coefficients)
    return empty.scatter_add(1, members.clamp(min=0), coefficients * (members >= 0))


def from_labels(labels: Tensor, classes: Tensor, members: Tensor, guess: Tensor) -> Tensor:
    """(n, k): the label's value for each member's class, shared among members of one class.

    Args:
        labels: (n, c) soft.
        classes: (m,) class of each image.
        members: (n, k) images of each encoding.
        guess: (n, k) in whose proportion members of one class share.
    """
    own = classes[members]
    same = (own[:, :, None] == own[:, None, :]).to(guess)
    together = (same @ guess[:, :, None])[:, :, 0].clamp(min=1e-9)
    return (labels.gather(1, own) * guess / together).clamp(min=LEAST)


def from_features(
    features: Tensor, centres: Tensor, members: Tensor, law: CoefficientDistribution
) -> Tensor:
    """(n, k): features regressed on the members' `prototypes`, mapped by rank to the law.

    Features are about quadratic in the coefficients, and of different strength from image to image.
    """
    gram = (centres @ centres.T)[members[:, :, None], members[:, None, :]]
    gram = gram + 0.01 * torch.eye(members.shape[1]).to(gram)
    seen = (features @ centres.T).gather(1, members)
    found = torch.linalg.solve(gram, seen[:, :, None])[:, :, 0]
    strengths = torch.ones(len(centres)).to(found)
    for image in torch.unique(members):
        strengths[image] = found[members == image].median().clamp(min=1e-6)
    ranked = law.matched((found / strengths[members]).clamp(min=0).sqrt())
    return (1 - SHRINKAGE) * ranked + SHRINKAGE * law.mean


def from_images(
    sizes: Tensor,
    images: Tensor,
    members: Tensor,
    start: Tensor,
    law: CoefficientDistribution,
    most: float,
) -> Tensor:
    """(n, k): least squares on the members' images, signs and residue being guessed in turn.

    Args:
        sizes: (n, C, H, W) `magnitudes`.
        images: (m, C, H, W), on the scale that ``start`` was found with.
        members: (n, k) images of each encoding.
        start: (n, k) coefficients.
        law: whose mean and spread they have a priori.
        most: upper bound of a coefficient.
    """
    flat = images.flatten(1)
    gram = (flat @ flat.T)[members[:, :, None], members[:, None, :]]
    precision = torch.eye(members.shape[1]).to(gram) / law.sorted.var()
    found, residue = start, Residue.unknown(sizes)
    for _ in range(ROUNDS):
        mixed = _mixed(found, images, members)
        signed = expected(sizes, mixed + residue.guess, residue.noise)
        residue = residue.after(sizes, signed, mixed)
        seen = _products(signed - residue.guess, images, members)
        noise = residue.noise[:, None]
        system = gram / noise[:, :, None] + precision
        found = torch.linalg.solve(system, seen / noise + law.mean / law.sorted.var())
        found = found.clamp(LEAST, most)
    return found * law.mean / found.mean()


def _mixed(coefficients: Tensor, images: Tensor, members: Tensor) -> Tensor:
    """(n, C, H, W) the images of the members, mixed."""
    flat = images.flatten(1)
    parts = zip(torch.split(coefficients, ROWS), torch.split(members, ROWS), strict=True)
    mixed = [torch.einsum("rk,rkd->rd", own, flat[held]) for own, held in parts]
    return torch.cat(mixed).reshape(-1, *images.shape[1:])


def _products(encodings: Tensor, images: Tensor, members: Tensor) -> Tensor:
    """(n, k) inner products of ``encodings`` (n, C, H, W) with the images of their members."""
    flat = images.flatten(1)
    parts = zip(torch.split(encodings.flatten(1), ROWS), torch.split(members, ROWS), strict=True)
    return torch.cat([torch.einsum("rd,rkd->rk", own, flat[held]) for own, held in parts])

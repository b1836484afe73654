"""Estimates the coefficients of private images in encodings, from labels, features or images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.reconstruction.recovery.phase_retrieval import Residue, expected
from instahide.attacks.reconstruction.recovery.sparse_mixing import ROWS
from instahide.encryption.scheme import Scheme

#: Rounds of alternating sign and coefficient estimates for given images.
ROUNDS = 4
#: Lower bound of the coefficient of an assigned image.
LEAST = 0.01
#: Weight of the mean coefficient in estimates from features.
SHRINKAGE = 0.2


@dataclass(frozen=True, eq=False)
class CoefficientDistribution:
    """The distribution of a scheme's private coefficients, from a public simulation.

    Attributes:
        sorted: (q,) sorted samples of one coefficient.
        total: mean sum of the private coefficients of a mix.
    """

    sorted: Tensor
    total: float

    @classmethod
    def of(cls, scheme: Scheme) -> CoefficientDistribution:
        """Simulate the distribution for ``scheme``."""
        private = scheme.simulated_coefficients()[:, : scheme.private_k]
        draws = torch.from_numpy(np.sort(private.ravel())).float()
        return cls(draws, float(private.sum(axis=1).mean()))

    @property
    def mean(self) -> float:
        """The mean of one coefficient."""
        return float(self.sorted.mean())

    def matched(self, values: Tensor) -> Tensor:
        """``values`` (n, k) mapped to this distribution by rank."""
        ranks = values.flatten().argsort().argsort().reshape(values.shape)
        places = ranks * (len(self.sorted) - 1) // max(values.numel() - 1, 1)
        return self.sorted.to(values)[places]


def weights(members: Tensor, coefficients: Tensor, images: int) -> Tensor:
    """(n, images) coefficients from ``members`` (n, k), -1 for none; 0 for images not in a mix."""
    empty = torch.zeros(len(members), images).to(coefficients)
    return empty.scatter_add(1, members.clamp(min=0), coefficients * (members >= 0))


def from_labels(labels: Tensor, classes: Tensor, members: Tensor, guess: Tensor) -> Tensor:
    """(n, k) coefficients from soft labels; members of the same class share the label's value.

    Args:
        labels: (n, c) soft labels.
        classes: (m,) class of each image.
        members: (n, k) images of each encoding.
        guess: (n, k) estimates, in proportion to which members of the same class share the value.
    """
    own = classes[members]
    same = (own[:, :, None] == own[:, None, :]).to(guess)
    together = (same @ guess[:, :, None])[:, :, 0].clamp(min=1e-9)
    return (labels.gather(1, own) * guess / together).clamp(min=LEAST)


def from_features(
    features: Tensor, centres: Tensor, members: Tensor, distribution: CoefficientDistribution
) -> Tensor:
    """(n, k) coefficients from a regression of features on the members' `prototypes`.

    Features are about quadratic in the coefficients, and their strength differs between images.
    Therefore the estimates are normalized for each image and mapped to ``distribution`` by rank.
    """
    gram = (centres @ centres.T)[members[:, :, None], members[:, None, :]]
    gram = gram + 0.01 * torch.eye(members.shape[1]).to(gram)
    products = (features @ centres.T).gather(1, members)
    found = torch.linalg.solve(gram, products[:, :, None])[:, :, 0]
    strengths = torch.ones(len(centres)).to(found)
    for image in torch.unique(members):
        strengths[image] = found[members == image].median().clamp(min=1e-6)
    ranked = distribution.matched((found / strengths[members]).clamp(min=0).sqrt())
    return (1 - SHRINKAGE) * ranked + SHRINKAGE * distribution.mean


def from_images(
    sizes: Tensor,
    images: Tensor,
    members: Tensor,
    start: Tensor,
    distribution: CoefficientDistribution,
    most: float,
) -> Tensor:
    """(n, k) coefficients by least squares, alternating with estimates of signs and residue.

    Args:
        sizes: (n, C, H, W) `magnitudes`.
        images: (m, C, H, W) images, on the scale at which ``start`` was estimated.
        members: (n, k) images of each encoding.
        start: (n, k) initial coefficients.
        distribution: its mean and variance are the prior of the coefficients.
        most: upper bound of a coefficient.
    """
    flat = images.flatten(1)
    gram = (flat @ flat.T)[members[:, :, None], members[:, None, :]]
    variance = distribution.sorted.var()
    precision = torch.eye(members.shape[1]).to(gram) / variance
    found, residue = start, Residue.unknown(sizes)
    for _ in range(ROUNDS):
        mixed = _mixed(found, images, members)
        signed = expected(sizes, mixed + residue.guess, residue.noise)
        residue = residue.after(sizes, signed, mixed)
        products = _products(signed - residue.guess, images, members)
        noise = residue.noise[:, None]
        system = gram / noise[:, :, None] + precision
        found = torch.linalg.solve(system, products / noise + distribution.mean / variance)
        found = found.clamp(LEAST, most)
    return found * distribution.mean / found.mean()


def _mixed(coefficients: Tensor, images: Tensor, members: Tensor) -> Tensor:
    """(n, C, H, W) weighted sums of the members' images."""
    flat = images.flatten(1)
    parts = zip(torch.split(coefficients, ROWS), torch.split(members, ROWS), strict=True)
    mixed = [torch.einsum("rk,rkd->rd", own, flat[held]) for own, held in parts]
    return torch.cat(mixed).reshape(-1, *images.shape[1:])


def _products(encodings: Tensor, images: Tensor, members: Tensor) -> Tensor:
    """(n, k) inner products of ``encodings`` (n, C, H, W) with the images of their members."""
    flat = images.flatten(1)
    parts = zip(torch.split(encodings.flatten(1), ROWS), torch.split(members, ROWS), strict=True)
    return torch.cat([torch.einsum("rd,rkd->rk", own, flat[held]) for own, held in parts])

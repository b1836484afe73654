"""A probabilistic model of features: how likely an encoding holds an image, or two of them.

The features of an encoding are the sum of its images' centers, each times a strength, and of noise.
Features are about quadratic in the coefficients, so that the strength of an image is its squared
coefficient over the mean of squared coefficients. The prior of a strength is a normal distribution
of mean 1; the noise is normal, with a covariance that is estimated from the residues. Strengths are
integrated out (probabilistic linear discriminant analysis, Ioffe, ECCV 2006, is the same model
with one image in a mix).

An encoding takes part in the regression that gives the centers. Its own part is therefore removed
from the centers that it is compared with, as in leave-one-out cross-validation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing

#: Ridge penalty of the centers, and steps of the conjugate gradients that compute them.
RIDGE, STEPS = 0.3, 20
#: Share of an isotropic covariance in that of the noise.
SHRINKAGE = 0.1
#: Largest leverage: the part of an encoding that the centers explain because it is their own.
MOST_LEVERAGE = 0.9
#: Range of strengths.
WEAKEST, STRONGEST = 0.05, 6.0


class FeatureModel(NamedTuple):
    """Features and centers in coordinates in which the noise is white.

    Attributes:
        features: (n, d) features.
        residues: (n, d) what the centers of the images leave, if they are fitted without the
            encoding.
        centres: (m, d) centers.
        members: (n, k) images of each encoding in the regression.
        leverages: (n, k) how much the center of each member moves towards the residue because the
            encoding takes part in the regression.
        precision: inverse of the variance of strengths.
        directions: (m, d) centers in the original coordinates, of length 1.
        white: (d, d) matrix that maps the original coordinates to those in which noise is white.
    """

    features: Tensor
    residues: Tensor
    centres: Tensor
    members: Tensor
    leverages: Tensor
    precision: float
    directions: Tensor
    white: Tensor

    def restricted(self, kept: Tensor) -> FeatureModel:
        """The model of only the images ``kept`` (q,), in this order."""
        place = torch.full((len(self.centres),), -1, device=kept.device)
        place[kept] = torch.arange(len(kept), device=kept.device)
        members = place[self.members]
        return self._replace(
            centres=self.centres[kept],
            directions=self.directions[kept],
            members=members.clamp(min=0),
            leverages=self.leverages * (members >= 0),
        )

    def single(self, rows: slice) -> Tensor:
        """(r, m) log evidence that each encoding of ``rows`` holds an image, against none."""
        seen, members = self.features[rows], self.members[rows]
        evidence = self._evidence(seen @ self.centres.T, self.centres.square().sum(dim=1))
        own = self.without_own_part(rows, members)
        products = (own @ seen[:, :, None])[:, :, 0]
        return evidence.scatter_(1, members, self._evidence(products, own.square().sum(dim=2)))

    def pairs(self, rows: slice, images: Tensor) -> Tensor:
        """(r, q, q) log evidence for each pair of candidates ``images`` (r, q), against none."""
        gram, products = self._moments(rows, images)
        own = gram.diagonal(dim1=1, dim2=2) + self.precision
        shifted = products + self.precision
        one, other = own[:, :, None], own[:, None, :]
        first, second = shifted[:, :, None], shifted[:, None, :]
        volume = (one * other - gram.square()).clamp(min=1e-6)
        gain = (other * first.square() + one * second.square() - 2 * gram * first * second) / volume
        return 0.5 * (gain - 2 * self.precision - (volume / self.precision**2).log())

    def strengths(self, rows: slice, images: Tensor) -> Tensor:
        """(r, k) expected strengths of ``images`` (r, k) in the encodings of ``rows``."""
        gram, products = self._moments(rows, images)
        gram.diagonal(dim1=1, dim2=2).add_(self.precision)
        found: Tensor = torch.linalg.solve(gram, products + self.precision)
        return found.clamp(WEAKEST, STRONGEST)

    def _moments(self, rows: slice, images: Tensor) -> tuple[Tensor, Tensor]:
        """(r, q, q) inner products of the centers of ``images``, and (r, q) with the encoding.

        Those of centers fitted without the encoding, from those of `centres`: a copy of all centers
        of each encoding would take most of the time.
        """
        centres, moved = self.centres[images], self._own_part(rows, images)
        seen, residues = self.features[rows], self.residues[rows]
        along = (centres @ torch.stack([seen, residues], dim=2)).unbind(dim=2)
        energy = residues.square().sum(dim=1)[:, None, None]
        cross = moved[:, :, None] * along[1][:, None, :]
        gram = centres @ centres.mT - cross - cross.mT
        gram += energy * moved[:, :, None] * moved[:, None, :]
        return gram, along[0] - moved * torch.linalg.vecdot(residues, seen)[:, None]

    def _own_part(self, rows: slice, images: Tensor) -> Tensor:
        """(r, q) how far the centers of ``images`` (r, q) moved for the encoding itself."""
        own = images[:, :, None] == self.members[rows, None, :]
        return (own * self.leverages[rows, None, :]).sum(dim=2)

    def without_own_part(self, rows: slice, images: Tensor) -> Tensor:
        """(r, q, d) centers of ``images`` (r, q), fitted without the encoding itself."""
        moved = self._own_part(rows, images)[:, :, None]
        return self.centres[images] - moved * self.residues[rows, None, :]

    def _evidence(self, products: Tensor, norms: Tensor) -> Tensor:
        """Log evidence of one image, from its inner products with the encoding and itself."""
        gain = (products + self.precision).square() / (norms + self.precision) - self.precision
        return 0.5 * (gain - (norms / self.precision + 1).log())


def fit_features(
    features: Tensor, members: Tensor, strengths: Tensor, images: int, variance: float
) -> FeatureModel:
    """Fit centers and the covariance of the noise to known images and strengths.

    Args:
        features: (n, d) features.
        members: (n, k) images of each encoding.
        strengths: (n, k) strength of each.
        images: number of images m.
        variance: variance of strengths, whose mean is 1.
    """
    mixes, even = SparseMixing(members, strengths, images), torch.ones(len(features)).to(features)
    sums = mixes.summed(features)
    centres = mixes.solved(sums, even, RIDGE, torch.zeros_like(sums), STEPS)
    leverages = mixes.leverages(even, RIDGE)
    leverage = (strengths * leverages).sum(dim=1, keepdim=True).clamp(max=MOST_LEVERAGE)
    residues = (features - mixes.mixed(centres)) / (1 - leverage)
    covariance = residues.T @ residues / len(residues)
    isotropic = covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
    noise = (1 - SHRINKAGE) * covariance + SHRINKAGE * isotropic
    white = torch.linalg.inv(torch.linalg.cholesky(noise)).T
    return FeatureModel(
        features @ white,
        residues @ white,
        centres @ white,
        members,
        leverages,
        1 / max(variance, 1e-3),
        F.normalize(centres, dim=1),
        white,
    )

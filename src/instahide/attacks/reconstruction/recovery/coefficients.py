"""Estimates the coefficients of private images in encodings, from labels, strengths or images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instahide.attacks.reconstruction.pair_encoder.filters import high_pass
from instahide.attacks.reconstruction.recovery.phase_retrieval import MOST_OWN, Recovery
from instahide.attacks.reconstruction.recovery.phase_retrieval import RIDGE as PENALTY
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.encryption.scheme import Scheme

#: Ridge penalty of coefficients, relative to the energy of an image.
RIDGE = 0.05
#: Lower bound of the coefficient of an assigned image.
LEAST = 0.01
#: Weight of the mean coefficient in estimates from strengths.
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

    @property
    def strength_variance(self) -> float:
        """The variance of a squared coefficient, over its squared mean."""
        squares = self.sorted.square()
        return float(squares.var() / squares.mean().square())

    def from_strengths(self, strengths: Tensor) -> Tensor:
        """(n, k) coefficients from noisy ``strengths`` (n, k), which are about their squares."""
        ranked = self.matched(strengths.sqrt())
        return (1 - SHRINKAGE) * ranked + SHRINKAGE * self.mean

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


def from_recovery(
    recovery: Recovery,
    mixes: SparseMixing,
    found: SparseMixing,
    distribution: CoefficientDistribution,
) -> Tensor:
    """(n, k) coefficients by least squares on the edges of the images, by rank.

    An encoding's own share in the images is removed, so that it does not confirm itself. Edges tell
    more than values, because public images hide these less.

    Args:
        recovery: the images and the signs of the encodings.
        mixes: coefficients with which they were recovered.
        found: the images of each encoding for which coefficients are wanted.
        distribution: distribution of the coefficients.
    """
    edges, members = high_pass(recovery.images), found.members
    wanted = torch.empty(members.shape).to(edges)
    influence = mixes.leverages(recovery.noise, PENALTY)
    share = (influence * mixes.coefficients).sum(dim=1, keepdim=True).clamp(max=MOST_OWN)
    for rows in mixes.blocks:
        private = high_pass(recovery.private[rows])
        signed = (high_pass(recovery.residue[rows]) + private).flatten(1)
        # What the images would leave of the encoding, had they been recovered without it.
        left = (private - mixes.mixed(edges, rows)).flatten(1) / (1 - share[rows])
        same = members[rows, :, None] == mixes.members[rows, None, :]
        own = (same * influence[rows, None, :]).sum(dim=2)
        held = found.each(edges, rows).flatten(2) - own[:, :, None] * left[:, None, :]
        products = held @ signed[:, :, None]
        gram = held @ held.mT
        penalty = (RIDGE * gram.diagonal(dim1=1, dim2=2).mean()).clamp(min=1e-12)
        system = gram + penalty * torch.eye(members.shape[1]).to(gram)
        wanted[rows] = torch.linalg.solve(system, products)[:, :, 0]
    return distribution.matched(wanted.clamp(min=0))

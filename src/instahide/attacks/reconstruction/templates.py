"""Templates of pairs of recovered images: which pair explains the edges of an encoding?"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.neighbours import blocks
from instahide.attacks.reconstruction.pair_encoder.filters import high_pass, high_pass_adjoint

#: Ratios of two coefficients for which templates are computed, as angles in degrees: the cosine is
#: the coefficient of the first image, the sine that of the second.
ANGLES = (12.0, 30.0, 45.0, 60.0, 78.0)


class Templates:
    """Templates of the edges of x^2.

    The template of images a and b with coefficients l and m is the high-pass of (l a + m b)^2. It
    is the sum of the edges of a^2, b^2 and ab, times l^2, m^2 and 2lm, so that correlations with it
    follow from inner products of these edges. Only the pairs that are asked for are computed, each
    once: memory is linear in their number.

    Args:
        sizes: (n, C, H, W) `magnitudes` of encodings.
        images: (m, C, H, W) images.
    """

    def __init__(self, sizes: Tensor, images: Tensor) -> None:
        self._sizes, self._images = sizes, images
        self._mean, self._spread = _moments(sizes)
        self._edges = high_pass(images.square()).flatten(1) / self._spread

    def correlations(self, first: Tensor, second: Tensor) -> Tensor:
        """(n, p) correlation of each encoding with the template of each of its pairs of images.

        It is the largest one over `ANGLES`.

        Args:
            first: (n, p) one image of each pair.
            second: (n, p) the other image.
        """
        count = len(self._images)
        keys = first.long() * count + second
        pairs = torch.unique(keys)
        norms = self._norms(pairs // count, pairs % count)
        found = torch.full(first.shape, -torch.inf, device=self._images.device)
        for rows in blocks(len(first), (first.shape[1] + 2) * self._edges.shape[1]):
            products = self._products(rows, first[rows].long(), second[rows].long())
            places = torch.searchsorted(pairs, keys[rows])
            for factors, norm in zip(_factors(), norms, strict=True):
                found[rows] = found[rows].maximum((products @ factors.to(products)) / norm[places])
        return found

    def _products(self, rows: slice, first: Tensor, second: Tensor) -> Tensor:
        """(r, p, 3) inner products of encodings with the edges of a^2, b^2 and ab."""
        squares = high_pass(self._sizes[rows].square()).flatten(1)
        observed = F.normalize((squares - self._mean) / self._spread, dim=1)
        one = observed @ self._edges.T
        # The inner product with the edges of a product is that of the product with this.
        adjoint = (observed / self._spread).reshape(self._sizes[rows].shape)
        flat = self._images.flatten(1)
        weighted = flat[first] * high_pass_adjoint(adjoint).flatten(1)[:, None]
        both = torch.linalg.vecdot(weighted, flat[second])
        return torch.stack([one.gather(1, first), one.gather(1, second), both], dim=2)

    def _norms(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """For each of `ANGLES`, (u,) lengths of the templates of pairs of images."""
        lengths = torch.empty(len(ANGLES), len(first), device=self._images.device)
        for rows in blocks(len(first), 4 * self._edges.shape[1]):
            a, b = first[rows], second[rows]
            both = high_pass(self._images[a] * self._images[b]).flatten(1) / self._spread
            edges = torch.stack([self._edges[a], self._edges[b], both], dim=1)
            gram = edges @ edges.mT
            for place, factors in enumerate(_factors()):
                own = factors.to(gram)
                lengths[place, rows] = ((gram @ own) @ own).clamp(min=0).add(1e-9).sqrt()
        return list(lengths)


def _factors() -> list[Tensor]:
    """For each of `ANGLES`, (3,) the factors of the edges of a^2, b^2 and ab."""
    radians = map(math.radians, ANGLES)
    return [torch.tensor([math.cos(r) ** 2, math.sin(r) ** 2, math.sin(2 * r)]) for r in radians]


def _moments(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) mean and standard deviation over encodings of the edges of x^2."""
    total = torch.zeros(2, sizes[0].numel(), dtype=torch.float64, device=sizes.device)
    for rows in blocks(len(sizes), sizes[0].numel()):
        edges = high_pass(sizes[rows].square()).flatten(1).double()
        total += torch.stack([edges.sum(dim=0), edges.square().sum(dim=0)])
    mean, square = total / len(sizes)
    spread = (square - mean.square()).clamp(min=0).sqrt()
    return mean.float(), spread.float() + 1e-6

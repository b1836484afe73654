"""Sparse matrix products with the coefficients: each encoding contains few of the images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Ridge penalty of the images, for encodings of mean square 1.
RIDGE = 0.2
#: Number of encodings per block, so that intermediate results stay in the cache.
ROWS = 512


class _Sums(NamedTuple):
    """A sparse matrix (a, b) that maps (b, D) to (a, D): weighted sums of a few rows."""

    indices: Tensor
    offsets: Tensor
    weights: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> _Sums:
        rows, columns = matrix.nonzero(as_tuple=True)
        ends = rows.bincount(minlength=len(matrix)).cumsum(0)
        return cls(columns, F.pad(ends[:-1], (1, 0)), matrix[rows, columns])

    def __call__(self, values: Tensor) -> Tensor:
        flat = F.embedding_bag(
            self.indices,
            values.flatten(1),
            self.offsets,
            mode="sum",
            per_sample_weights=self.weights,
        )
        return flat.reshape(-1, *values.shape[1:])


class Part(NamedTuple):
    """A block of encodings: their ``rows``, the mixing matrix and its transpose.

    ``mixed`` maps images (m, ...) to mixes (r, ...). ``summed`` maps encodings (r, ...) to
    (m, ...): for each image, the sum of the encodings that contain it, weighted by its
    coefficients.
    """

    rows: slice
    mixed: _Sums
    summed: _Sums


class SparseMixing:
    """The coefficients of m images in n encodings.

    Attributes:
        weights: (n, m) coefficient of each image in each encoding, 0 if it is not in it.
        parts: blocks of encodings.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights, self.parts, start = weights, [], 0
        for some in torch.split(weights, ROWS):
            rows = slice(start, start + len(some))
            self.parts.append(Part(rows, _Sums.of(some), _Sums.of(some.T)))
            start += len(some)

    @property
    def alone(self) -> bool:
        """Whether no encoding contains two images, so that relative signs are undetermined."""
        return int((self.weights > 0).sum(dim=1).max()) < 2

    def mixed(self, images: Tensor) -> Tensor:
        """(n, ...) the mixes of ``images`` (m, ...)."""
        return torch.cat([part.mixed(images) for part in self.parts])

    def summed(self, encodings: Tensor) -> Tensor:
        """(m, ...) for each image, the weighted sum of the ``encodings`` (n, ...) with it."""
        total = torch.zeros((self.weights.shape[1], *encodings.shape[1:])).to(encodings)
        for part in self.parts:
            total += part.summed(encodings[part.rows])
        return total

    def ridge(self, noise: Tensor) -> Tensor:
        """(m, m) matrix that maps sums of encodings, divided by their ``noise`` (n,), to images.

        These images are the solution of a ridge regression with penalty `RIDGE`.
        """
        gram = self.summed(self.weights / noise[:, None])
        inverse: Tensor = torch.linalg.inv(gram + RIDGE * torch.eye(len(gram)).to(gram))
        return inverse

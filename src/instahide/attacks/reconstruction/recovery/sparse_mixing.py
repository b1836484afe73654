"""Sums over what is mixed into what: of many images, few are in each encoding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Precision of an image's values where those of encodings have a mean square of 1.
RIDGE = 0.2
#: Encodings at a time: what is done with them meanwhile stays in the cache.
ROWS = 512


class _Sums(NamedTuple):
    """A sparse matrix (a, b), by which (b, D) becomes (a, D): weighted sums of few rows each."""

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
    """Some encodings: their ``rows``, and sums from images to them and back.

    ``mixed`` takes (m, ...) to (r, ...), the images mixed; ``summed`` takes (r, ...) to (m, ...),
    for each image the sum of the encodings that hold it, by its coefficients.
    """

    rows: slice
    mixed: _Sums
    summed: _Sums


class SparseMixing:
    """The coefficients of m images in n encodings.

    Attributes:
        weights: (n, m) coefficient of each image in each encoding, 0 where it is not.
        parts: a few encodings each, for work that goes over all of them.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights, self.parts, start = weights, [], 0
        for some in torch.split(weights, ROWS):
            rows = slice(start, start + len(some))
            self.parts.append(Part(rows, _Sums.of(some), _Sums.of(some.T)))
            start += len(some)

    @property
    def alone(self) -> bool:
        """Whether no encoding holds two images, so that none tells their relative signs."""
        return int((self.weights > 0).sum(dim=1).max()) < 2

    def mixed(self, images: Tensor) -> Tensor:
        """(n, ...) the sums of ``images`` (m, ...) that encodings hold."""
        return torch.cat([part.mixed(images) for part in self.parts])

    def summed(self, encodings: Tensor) -> Tensor:
        """(m, ...) for each image the sum of the ``encodings`` (n, ...) that hold it."""
        total = torch.zeros((self.weights.shape[1], *encodings.shape[1:])).to(encodings)
        for part in self.parts:
            total += part.summed(encodings[part.rows])
        return total

    def ridge(self, noise: Tensor) -> Tensor:
        """(m, m) by which sums of encodings, each over its ``noise`` (n,), become images.

        These are the images of least squares, their values having a precision of `RIDGE`.
        """
        gram = self.summed(self.weights / noise[:, None])
        inverse: Tensor = torch.linalg.inv(gram + RIDGE * torch.eye(len(gram)).to(gram))
        return inverse

"""Products with the coefficients, which are sparse: each encoding contains few of the images.

No dense matrix of encodings and images, or of images and images, is formed, so that memory is
linear in both. Sums over rows are those of `embedding_bag`, which is faster than `index_add_`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Number of encodings per block, so that intermediate results stay in the cache.
ROWS = 512


class _Rows(NamedTuple):
    """A sparse matrix: ``columns`` (e,) of its entries, row after row; ``starts`` (r,) of rows."""

    columns: Tensor
    starts: Tensor

    def times(self, entries: Tensor, values: Tensor) -> Tensor:
        """(r, ...) the product of the matrix with ``entries`` (e,) and ``values`` (c, ...)."""
        flat = F.embedding_bag(
            self.columns, values.flatten(1), self.starts, mode="sum", per_sample_weights=entries
        )
        return flat.reshape(-1, *values.shape[1:])


@dataclass(frozen=True, eq=False)
class SparseMixing:
    """The coefficients of m images in n encodings.

    Attributes:
        members: (n, k) images of each encoding, -1 for none.
        coefficients: (n, k) their coefficients.
        images: the number of images m.
    """

    members: Tensor
    coefficients: Tensor
    images: int

    def __post_init__(self) -> None:
        held = self.members >= 0
        object.__setattr__(self, "coefficients", self.coefficients * held)
        object.__setattr__(self, "members", self.members.clamp(min=0))

    @classmethod
    def of(cls, weights: Tensor) -> SparseMixing:
        """From a dense matrix (n, m) of coefficients, of which no more than a few are not 0."""
        most = int((weights != 0).sum(dim=1).max().clamp(min=1)) if len(weights) else 1
        members = weights.abs().topk(min(most, weights.shape[1]), dim=1).indices
        return cls(members, weights.gather(1, members), weights.shape[1])

    def __getitem__(self, rows: slice) -> SparseMixing:
        return SparseMixing(self.members[rows], self.coefficients[rows], self.images)

    @property
    def blocks(self) -> Iterator[slice]:
        """Slices of at most `ROWS` encodings each."""
        for start in range(0, len(self.members), ROWS):
            yield slice(start, start + ROWS)

    @property
    def private_shares(self) -> Tensor:
        """(n,) sum of the coefficients of each encoding."""
        return self.coefficients.sum(dim=1)

    def each(self, images: Tensor, rows: slice) -> Tensor:
        """(r, k, ...) the ``images`` (m, ...) of each encoding of ``rows``, not yet mixed."""
        return images[self.members[rows]]

    def coarse(self, block: int) -> SparseMixing:
        """The same for means of blocks of ``block`` x ``block`` pixels."""
        return self

    def mixed(self, images: Tensor, rows: slice = slice(None)) -> Tensor:
        """(r, ...) the mixes of ``images`` (m, ...) in the encodings ``rows``."""
        flat = F.embedding_bag(
            self.members[rows],
            images.flatten(1),
            mode="sum",
            per_sample_weights=self.coefficients[rows],
        )
        return flat.reshape(-1, *images.shape[1:])

    def summed(self, encodings: Tensor, factors: Tensor | None = None) -> Tensor:
        """(m, ...) for each image, the weighted sum of the ``encodings`` (n, ...) with it.

        The weights are the coefficients, times one of the ``factors`` (n,) for each encoding.
        """
        order, rows = self._by_image
        weights = self.coefficients if factors is None else self.coefficients * factors[:, None]
        return rows.times(weights.flatten()[order], encodings)

    def add(self, total: Tensor, encodings: Tensor, rows: slice) -> None:
        """Add the weighted sums of ``encodings`` (r, ...), those of ``rows``, to ``total``."""
        places = (1,) * (encodings.ndim - 1)
        for members, weights in zip(self.members[rows].T, self.coefficients[rows].T, strict=True):
            total.index_add_(0, members, encodings * weights.reshape(-1, *places))

    def energies(self, noise: Tensor) -> Tensor:
        """(m,) for each image, the sum of its squared coefficients, over the ``noise`` (n,)."""
        total = torch.zeros(self.images).to(self.coefficients)
        shares = self.coefficients.square() / noise[:, None]
        return total.index_add_(0, self.members.flatten(), shares.flatten())

    def leverages(self, noise: Tensor, ridge: float) -> Tensor:
        """(n, k) influence of each encoding on each of its images.

        It is how much an image changes with the encoding minus its fit, per coefficient. That two
        encodings can contain the same two images is ignored.

        Args:
            noise: (n,) variance of the noise of each encoding.
            ridge: penalty of the images.
        """
        return self.coefficients / noise[:, None] / (self.energies(noise) + ridge)[self.members]

    def solved(
        self, sums: Tensor, noise: Tensor, ridge: float, start: Tensor, steps: int
    ) -> Tensor:
        """(m, ...) images by ridge regression, with preconditioned conjugate gradients.

        Args:
            sums: (m, ...) `summed` encodings, over their noise.
            noise: (n,) variance of the noise of each encoding.
            ridge: penalty of the images.
            start: (m, ...) images that are nearly right.
            steps: number of steps.
        """
        scale = (self.energies(noise) + ridge).reshape(-1, *(1,) * (sums.ndim - 1))
        normal = self._normal(noise)
        images, left = start, sums - normal(start) - ridge * start
        direction = scaled = left / scale
        energy = (left * scaled).sum()
        for _ in range(steps):
            along = normal(direction) + ridge * direction
            step = energy / (direction * along).sum().clamp(min=1e-30)
            images, left = images + step * direction, left - step * along
            scaled = left / scale
            before, energy = energy, (left * scaled).sum()
            direction = scaled + energy / before.clamp(min=1e-30) * direction
        return images

    def _normal(self, noise: Tensor) -> Callable[[Tensor], Tensor]:
        """The normal equations' left side, without a penalty: of images (m, ...) to (m, ...)."""
        place, rows = self._pairs
        weighted = self.coefficients / noise[:, None]
        products = self.coefficients[:, :, None] * weighted[:, None, :]
        entries = torch.zeros(len(rows.columns)).to(products)
        entries.index_add_(0, place.flatten(), products.flatten())
        return partial(rows.times, entries)

    @cached_property
    def _by_image(self) -> tuple[Tensor, _Rows]:
        """Order (n k,) of the coefficients by image; and the encodings, in this order."""
        members = self.members.flatten()
        order = members.argsort(stable=True)
        columns = order // self.members.shape[1]
        return order, _Rows(columns, self._starts(members[order]))

    @cached_property
    def _pairs(self) -> tuple[Tensor, _Rows]:
        """Entry (n, k, k) of each pair of images of an encoding; and the images that share one."""
        pairs = self.members[:, :, None] * self.images + self.members[:, None, :]
        found, place = torch.unique(pairs, return_inverse=True)
        first = found // self.images
        return place, _Rows(found % self.images, self._starts(first))

    def _starts(self, sorted_images: Tensor) -> Tensor:
        """(m,) at which place each image would begin in ``sorted_images`` (e,)."""
        return torch.searchsorted(
            sorted_images, torch.arange(self.images, device=sorted_images.device)
        )

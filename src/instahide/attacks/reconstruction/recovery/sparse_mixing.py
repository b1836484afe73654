"""Products with the coefficients, which are sparse: each encoding contains few of the images.

No matrix of encodings and images, or of images and images, is formed. Memory is linear in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Number of encodings per block, so that intermediate results stay in the cache.
ROWS = 512


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

    def summed(self, encodings: Tensor) -> Tensor:
        """(m, ...) for each image, the weighted sum of the ``encodings`` (n, ...) with it."""
        total = torch.zeros((self.images, *encodings.shape[1:])).to(encodings)
        for rows in self.blocks:
            self.add(total, encodings[rows], rows)
        return total

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
        images, left = start, sums - self._normal(start, noise, ridge)
        direction = scaled = left / scale
        energy = (left * scaled).sum()
        for _ in range(steps):
            along = self._normal(direction, noise, ridge)
            step = energy / (direction * along).sum().clamp(min=1e-30)
            images, left = images + step * direction, left - step * along
            scaled = left / scale
            before, energy = energy, (left * scaled).sum()
            direction = scaled + energy / before.clamp(min=1e-30) * direction
        return images

    def _normal(self, images: Tensor, noise: Tensor, ridge: float) -> Tensor:
        """(m, ...) the normal equations' left side for ``images``."""
        total = ridge * images
        for rows in self.blocks:
            own = noise[rows].reshape(-1, *(1,) * (images.ndim - 1))
            self.add(total, self.mixed(images, rows) / own, rows)
        return total

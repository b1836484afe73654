"""Products with the coefficients if every image of a mix was moved, as by random crops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing


@dataclass(frozen=True, eq=False)
class MovedMixing(SparseMixing):
    """The coefficients of m images in n encodings, each moved within its frame.

    Pixels from outside of an image are 0, so that images are to be given without `black`.

    Attributes:
        moves: (n, k, 2) int64 pixels down and right by which each image is moved.
        padding: largest move.
    """

    moves: Tensor
    padding: int

    def __getitem__(self, rows: slice) -> MovedMixing:
        return replace(
            self,
            members=self.members[rows],
            coefficients=self.coefficients[rows],
            moves=self.moves[rows],
        )

    def each(self, images: Tensor, rows: slice) -> Tensor:
        """(r, k, C, H, W) the moved ``images`` (m, C, H, W) of each encoding, not yet mixed."""
        there = windows(images, self.padding)
        found = [
            there[members, :, self.padding - moves[:, 0], self.padding - moves[:, 1]]
            for members, moves in zip(
                self.members[rows].unbind(1), self.moves[rows].unbind(1), strict=True
            )
        ]
        return torch.stack(found, dim=1)

    def mixed(self, images: Tensor, rows: slice = slice(None)) -> Tensor:
        """(r, C, H, W) the mixes of ``images`` (m, C, H, W) in the encodings ``rows``."""
        held = self.each(images, rows)
        return torch.einsum("rk,rkchw->rchw", self.coefficients[rows], held)

    def add(self, total: Tensor, encodings: Tensor, rows: slice) -> None:
        """Add the weighted sums of ``encodings`` (r, C, H, W), moved back, to ``total``."""
        there = windows(encodings, self.padding)
        places = torch.arange(len(encodings), device=encodings.device)
        for members, weights, moves in zip(
            self.members[rows].unbind(1),
            self.coefficients[rows].unbind(1),
            self.moves[rows].unbind(1),
            strict=True,
        ):
            back = there[places, :, self.padding + moves[:, 0], self.padding + moves[:, 1]]
            total.index_add_(0, members, back * weights[:, None, None, None])

    def summed(self, encodings: Tensor, factors: Tensor | None = None) -> Tensor:
        """(m, C, H, W) for each image, the weighted sum of the ``encodings``, moved back.

        The weights are the coefficients, times one of the ``factors`` (n,) for each encoding.
        """
        total = torch.zeros((self.images, *encodings.shape[1:])).to(encodings)
        for rows in self.blocks:
            block = encodings[rows]
            scaled = block if factors is None else block * factors[rows, None, None, None]
            self.add(total, scaled, rows)
        return total

    def coarse(self, block: int) -> MovedMixing:
        """The same for means of blocks of ``block`` x ``block`` pixels: moves by whole blocks."""
        rounded = (self.moves / block).round().long()
        return replace(self, moves=rounded, padding=math.ceil(self.padding / block))

    def _normal(self, noise: Tensor) -> Callable[[Tensor], Tensor]:
        # Images are moved in other ways in each encoding that they share.
        def product(images: Tensor) -> Tensor:
            total = torch.zeros_like(images)
            for rows in self.blocks:
                self.add(total, self.mixed(images, rows) / noise[rows, None, None, None], rows)
            return total

        return product


def windows(images: Tensor, padding: int) -> Tensor:
    """(n, C, 2 p + 1, 2 p + 1, H, W) all windows of images (n, C, H, W) padded with zeros.

    A view of the padded images. Window (y, x) shows an image moved by ``padding`` - y down and by
    ``padding`` - x right.
    """
    height, width = images.shape[-2:]
    return F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)

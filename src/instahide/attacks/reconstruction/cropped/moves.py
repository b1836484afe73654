"""The move by which each of some maps fits each of some images best: correlations at all moves.

Correlations are products in the frequency domain: for each frequency one matrix product of all
images with all maps. Only the moves that are asked for are transformed back.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Images and maps that are compared at a time.
IMAGES, MAPS = 32, 1000


class Fits(NamedTuple):
    """``values`` (a, n) largest inner products, and ``moves`` (a, n, 2) int8 down and right."""

    values: Tensor
    moves: Tensor


def best_moves(images: Tensor, maps: Tensor, reach: int, margin: int = 0) -> Fits:
    """How well each of ``maps``, moved by at most ``reach`` pixels, fits each of ``images``.

    Args:
        images: (a, c, H + 2 margin, W + 2 margin) images, on a canvas that is larger than the maps.
        maps: (n, c, H, W) maps. Outside of them, and of the images, are zeros.
        reach: largest move in each direction.
        margin: by how much the canvas is larger, on each side.
    """
    height, width = (_fast(side + margin + reach) for side in maps.shape[-2:])
    whole = F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))
    wanted = torch.roll(whole, (-margin, -margin), dims=(-2, -1))
    back = _inverse(height, width, reach)
    values = torch.empty(len(images), len(maps), device=maps.device)
    moves = torch.empty(*values.shape, 2, dtype=torch.int8, device=maps.device)
    for column, block in enumerate(torch.split(maps, MAPS)):
        seen = flattened(spectra(block, (height, width))).conj()
        there = slice(MAPS * column, MAPS * column + len(block))
        for row, some in enumerate(torch.split(wanted, IMAGES)):
            rows = slice(IMAGES * row, IMAGES * row + len(some))
            products = flattened(torch.fft.rfft2(some)).mT @ seen
            best = _at_moves(products, back, (height, width)).max(dim=0)
            values[rows, there] = best.values
            side = 2 * reach + 1
            found = torch.stack([best.indices // side, best.indices % side], dim=2) - reach
            moves[rows, there] = found.to(torch.int8)
    return Fits(values, moves)


def moved(maps: Tensor, moves: Tensor, reach: int, margin: int) -> Tensor:
    """(n, c, H + 2 margin, W + 2 margin) ``maps`` (n, c, H, W) moved on a canvas.

    Args:
        maps: maps, with zeros outside.
        moves: (n, 2) pixels down and right.
        reach: largest of them.
        margin: by how much the canvas is larger, on each side.
    """
    height, width = maps.shape[-2:]
    around = F.pad(maps, [reach + margin] * 4)
    there = around.unfold(2, height + 2 * margin, 1).unfold(3, width + 2 * margin, 1)
    places = reach - moves.long()
    found: Tensor = there[
        torch.arange(len(maps), device=maps.device), :, places[:, 0], places[:, 1]
    ]
    return found


def spectra(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(n, c, h, w // 2 + 1) Fourier transforms of ``maps`` on a ``grid`` (h, w)."""
    found: Tensor = torch.fft.rfft2(maps, s=grid)
    return found


def flattened(spectrum: Tensor) -> Tensor:
    """(n, c, h, w) -> (h w, c, n): a matrix for each frequency."""
    return spectrum.permute(2, 3, 1, 0).flatten(0, 1)


def unflattened(matrices: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of `flattened`, for spectra on ``grid`` (h, w)."""
    return matrices.reshape(grid[0], grid[1] // 2 + 1, *matrices.shape[1:]).permute(3, 2, 0, 1)


def _at_moves(products: Tensor, back: tuple[Tensor, Tensor], grid: tuple[int, int]) -> Tensor:
    """(moves, a, n) inner products at all moves, from ``products`` (frequencies, a, n)."""
    down, right = back
    part = (down.to(products) @ products.reshape(grid[0], -1)).reshape(
        len(down), grid[1] // 2 + 1, -1
    )
    right = right.to(products)
    real = torch.einsum("ox,yxp->yop", right.real.contiguous(), part.real)
    real -= torch.einsum("ox,yxp->yop", right.imag.contiguous(), part.imag)
    return real.reshape(-1, *products.shape[1:])


@lru_cache(maxsize=16)
def _inverse(height: int, width: int, reach: int) -> tuple[Tensor, Tensor]:
    """Matrices of the inverse real transform that give only the moves -``reach`` to ``reach``."""
    moves = torch.arange(-reach, reach + 1)[:, None]
    rows, columns = torch.arange(height), torch.arange(width // 2 + 1)
    # All columns but the first and the last stand for two frequencies.
    twice = 2 - ((columns == 0) | (columns == width // 2)).float()
    down = torch.exp(2j * math.pi * moves * rows / height)
    right = torch.exp(2j * math.pi * moves * columns / width) * twice / (height * width)
    return down.to(torch.complex64), right.to(torch.complex64)


def _fast(side: int) -> int:
    """The next multiple of 4: Fourier transforms of such sides are fast, and even."""
    return -(-side // 4) * 4

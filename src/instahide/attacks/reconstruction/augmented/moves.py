"""Moves of images: an image is mirrored or not, and then shifted; nothing comes in at the border.

A move is a row of three integers, as in the keys of an encoder: shift down, shift right, and 1 if
the image is mirrored, left to right, before it is shifted.
"""

from __future__ import annotations

import torch
from torch import Tensor


def moved(images: Tensor, moves: Tensor) -> Tensor:
    """(n, C, H, W) ``images`` after the ``moves`` (n, 3); 0 comes in."""
    rows, columns = _axes(images)
    down, right, mirrored = moves.to(images.device).long().T[:, :, None]
    columns = columns - right
    width = images.shape[3]
    return _picked(images, rows - down, torch.where(mirrored > 0, width - 1 - columns, columns))


def moved_back(images: Tensor, moves: Tensor) -> Tensor:
    """(n, C, H, W) the adjoint of `moved`: it undoes the ``moves``, up to what left the image."""
    rows, columns = _axes(images)
    down, right, mirrored = moves.to(images.device).long().T[:, :, None]
    width = images.shape[3]
    columns = torch.where(mirrored > 0, width - 1 - columns, columns.expand(len(moves), -1))
    return _picked(images, rows + down, columns + right)


def after(first: Tensor, second: Tensor) -> Tensor:
    """(..., 3) the single move that equals the ``second`` move after the ``first``, both (..., 3).

    Mirroring a shifted image turns the direction of its shift.
    """
    sign = 1 - 2 * second[..., 2]
    return torch.stack(
        [
            first[..., 0] + second[..., 0],
            sign * first[..., 1] + second[..., 1],
            (first[..., 2] + second[..., 2]) % 2,
        ],
        dim=-1,
    )


def inverse(moves: Tensor) -> Tensor:
    """(..., 3) the moves that undo ``moves`` (..., 3)."""
    sign = 1 - 2 * moves[..., 2]
    return torch.stack([-moves[..., 0], -sign * moves[..., 1], moves[..., 2]], dim=-1)


def _axes(images: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(torch.arange(side, device=images.device)[None] for side in images.shape[2:])


def _picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The values at ``rows`` (n, H) and ``columns`` (n, W) of each image; 0 outside of it."""
    height, width = images.shape[2:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None
    ]
    places = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    flat = images.flatten(2)
    values = flat.gather(2, places.flatten(1)[:, None].expand_as(flat)).reshape(images.shape)
    return values * inside[:, None]

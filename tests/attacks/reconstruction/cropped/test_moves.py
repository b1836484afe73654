"""Correlations at all moves against the same, one move at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from instahide.attacks.reconstruction.cropped import moves
from instahide.attacks.reconstruction.cropped.moves import best_moves, moved

CASES = st.tuples(
    st.integers(1, 4), st.integers(1, 5), st.integers(5, 9), st.integers(4, 8), st.integers(0, 3)
)


def placed(image: Tensor, down: int, right: int, margin: int) -> Tensor:
    """(c, H, W) -> (c, H + 2 margin, W + 2 margin), pixel by pixel."""
    channels, height, width = image.shape
    canvas = torch.zeros(channels, height + 2 * margin, width + 2 * margin)
    for y in range(height):
        for x in range(width):
            to = y + down + margin, x + right + margin
            if 0 <= to[0] < canvas.shape[1] and 0 <= to[1] < canvas.shape[2]:
                canvas[:, to[0], to[1]] = image[:, y, x]
    return canvas


@pytest.mark.slow
@given(CASES, st.integers(0, 3))
def test_the_best_move_is_the_best_of_all(case: tuple[int, ...], margin: int) -> None:
    images, count, height, width, reach = case
    generator = torch.Generator().manual_seed(sum(case))
    maps = torch.randn(count, 2, height, width, generator=generator)
    whole = torch.randn(images, 2, height + 2 * margin, width + 2 * margin, generator=generator)
    fits = best_moves(whole, maps, reach, margin)
    steps = range(-reach, reach + 1)
    for row in range(images):
        for column in range(count):
            each = {
                (down, right): float((whole[row] * placed(maps[column], down, right, margin)).sum())
                for down in steps
                for right in steps
            }
            found = tuple(fits.moves[row, column].tolist())
            torch.testing.assert_close(
                float(fits.values[row, column]), max(each.values()), atol=1e-3, rtol=1e-3
            )
            torch.testing.assert_close(each[found], max(each.values()), atol=1e-3, rtol=1e-3)


@given(CASES, st.integers(0, 3))
def test_maps_are_moved_with_their_pixels(case: tuple[int, ...], margin: int) -> None:
    _, count, height, width, reach = case
    generator = torch.Generator().manual_seed(sum(case))
    maps = torch.randn(count, 2, height, width, generator=generator)
    by = torch.randint(-reach, reach + 1, (count, 2), generator=generator)
    found = moved(maps, by, reach, margin)
    for place, (down, right) in enumerate(by.tolist()):
        torch.testing.assert_close(found[place], placed(maps[place], down, right, margin))


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, images = torch.randn(50, 3, 8, 8), torch.randn(20, 3, 8, 8)
    whole = best_moves(images, maps, 2)

    monkeypatch.setattr(moves, "IMAGES", 7)
    monkeypatch.setattr(moves, "MAPS", 11)
    parts = best_moves(images, maps, 2)
    torch.testing.assert_close(parts.values, whole.values)
    assert torch.equal(parts.moves, whole.moves)

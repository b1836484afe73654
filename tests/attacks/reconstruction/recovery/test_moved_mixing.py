"""Products with coefficients and moves against encryption's own crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from instahide.attacks.reconstruction.recovery import sparse_mixing
from instahide.attacks.reconstruction.recovery.moved_mixing import MovedMixing
from instahide.attacks.reconstruction.recovery.phase_retrieval import coverage
from instahide.attacks.reconstruction.recovery.sparse_mixing import ROWS, SparseMixing
from instahide.encryption.kernels.reference import shift_and_flip

SHAPE = 2, 7, 5
#: Numbers of encodings, of images, of images in a mix; and the largest move.
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3))


def some_mixes(encodings: int, images: int, held: int, padding: int) -> MovedMixing:
    generator = torch.Generator().manual_seed(encodings + images)
    return MovedMixing(
        torch.randint(-1, images, (encodings, held), generator=generator),
        0.1 + torch.rand(encodings, held, generator=generator),
        images,
        torch.randint(-padding, padding + 1, (encodings, held, 2), generator=generator),
        padding,
    )


def encrypted(mixes: MovedMixing, images: Tensor) -> Tensor:
    """The mixes, each image moved as encryption moves it."""
    found = []
    for members, coefficients, moves in zip(
        mixes.members.tolist(), mixes.coefficients, mixes.moves.tolist(), strict=True
    ):
        moved = [
            shift_and_flip(images[image].numpy(), np.array([*move, 0]), 0)
            for image, move in zip(members, moves, strict=True)
        ]
        found.append(torch.einsum("k,kchw->chw", coefficients, torch.from_numpy(np.stack(moved))))
    return torch.stack(found)


@given(SIZES)
def test_mixes_are_those_of_encryption(sizes: tuple[int, int, int, int]) -> None:
    mixes, images = some_mixes(*sizes), torch.randn(sizes[1], *SHAPE)
    expected = encrypted(mixes, images)
    torch.testing.assert_close(mixes.mixed(images), expected)
    rows = slice(sizes[0] // 3, sizes[0])
    torch.testing.assert_close(mixes.mixed(images, rows), expected[rows])
    torch.testing.assert_close(mixes[rows].mixed(images), expected[rows])


@given(SIZES)
def test_sums_are_the_transpose_of_mixes(sizes: tuple[int, int, int, int]) -> None:
    mixes = some_mixes(*sizes)
    images, encodings = torch.randn(sizes[1], *SHAPE), torch.randn(sizes[0], *SHAPE)
    there = (mixes.mixed(images) * encodings).double().sum()
    back = (mixes.summed(encodings) * images).double().sum()
    torch.testing.assert_close(there, back, atol=1e-3, rtol=1e-4)
    factors = torch.randn(sizes[0])
    scaled = mixes.summed(encodings * factors[:, None, None, None])
    torch.testing.assert_close(mixes.summed(encodings, factors), scaled, atol=1e-4, rtol=1e-4)


def test_images_that_are_not_moved_are_mixed_as_without_moves() -> None:
    mixes = some_mixes(ROWS + 9, 6, 2, 3)
    still = MovedMixing(mixes.members, mixes.coefficients, 6, torch.zeros_like(mixes.moves), 3)
    plain, images = SparseMixing(mixes.members, mixes.coefficients, 6), torch.randn(6, *SHAPE)
    torch.testing.assert_close(still.mixed(images), plain.mixed(images))
    encodings = torch.randn(ROWS + 9, *SHAPE)
    torch.testing.assert_close(still.summed(encodings), plain.summed(encodings))
    rows = slice(0, 9)
    torch.testing.assert_close(still.each(images, rows), plain.each(images, rows))


def test_blocks_do_not_change_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    mixes, encodings = some_mixes(300, 20, 2, 2), torch.randn(300, *SHAPE)
    noise = 0.5 + torch.rand(300)

    def products() -> tuple[Tensor, Tensor]:
        sums = mixes.summed(encodings)
        return sums, mixes.solved(sums, noise, 0.1, torch.zeros_like(sums), 3)

    whole = products()
    monkeypatch.setattr(sparse_mixing, "ROWS", 7)
    for found, expected in zip(products(), whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_planted_images_are_solved_for() -> None:
    mixes, images = some_mixes(400, 6, 2, 2), torch.randn(6, *SHAPE)
    even = torch.ones(400)
    sums = mixes.summed(mixes.mixed(images))
    found = mixes.solved(sums, even, 1e-4, torch.zeros_like(sums), 60)
    torch.testing.assert_close(found, images, atol=1e-2, rtol=1e-2)


def test_means_of_blocks_are_moved_by_whole_blocks() -> None:
    mixes = some_mixes(50, 6, 2, 4)
    for block, most in ((4, 1), (2, 2), (3, 2)):
        coarse = mixes.coarse(block)
        assert coarse.padding == most
        assert int(coarse.moves.abs().max()) <= most
        assert (coarse.moves * block - mixes.moves).abs().max() <= block / 2


@pytest.mark.parametrize("padding", [1, 2])
def test_the_coverage_is_the_share_of_moves_that_show_the_image(padding: int) -> None:
    moves = range(-padding, padding + 1)
    shown = [
        shift_and_flip(np.ones((1, 7, 5), np.float32), np.array([down, right, 0]), 0)[0]
        for down in moves
        for right in moves
    ]
    torch.testing.assert_close(
        coverage(torch.zeros(1, 7, 5), padding), torch.from_numpy(np.mean(shown, axis=0))
    )

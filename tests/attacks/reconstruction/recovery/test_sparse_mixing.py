"""Products with sparse coefficients against the dense products that they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from instahide.attacks.reconstruction.recovery.sparse_mixing import ROWS, SparseMixing
from tests.attacks.tensor_sizes import largest_tensor

#: Numbers of encodings, of images and of images in a mix.
SIZES = st.tuples(st.integers(1, ROWS + 40), st.integers(1, 30), st.integers(1, 4))


def some_mixes(encodings: int, images: int, held: int) -> tuple[SparseMixing, Tensor]:
    """Mixes with missing members and images without a mix, and the same as a matrix (n, m)."""
    generator = torch.Generator().manual_seed(encodings + images)
    members = torch.randint(-1, images, (encodings, held), generator=generator)
    members[members % 5 == 4] = -1
    coefficients = 0.1 + torch.rand(encodings, held, generator=generator)
    dense = torch.zeros(encodings, images + 1).scatter_add(1, members + 1, coefficients)[:, 1:]
    return SparseMixing(members, coefficients, images), dense


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@given(SIZES)
def test_products_are_those_of_the_matrix(sizes: tuple[int, int, int]) -> None:
    mixes, dense = some_mixes(*sizes)
    images, encodings = (torch.randn(count, 2, 1, 3) for count in (sizes[1], sizes[0]))
    close(mixes.mixed(images), torch.einsum("nm,mchw->nchw", dense, images))
    close(mixes.summed(encodings), torch.einsum("nm,nchw->mchw", dense, encodings))
    factors = torch.randn(sizes[0])
    expected = torch.einsum("nm,n,nchw->mchw", dense, factors, encodings)
    close(mixes.summed(encodings, factors), expected)
    close(mixes.private_shares, dense.sum(dim=1))


@given(SIZES, st.integers(0, 300), st.integers(1, 300))
def test_rows_are_those_of_the_matrix(sizes: tuple[int, int, int], start: int, length: int) -> None:
    mixes, dense = some_mixes(*sizes)
    rows = slice(start % sizes[0], start % sizes[0] + length)
    images = torch.randn(sizes[1], 1, 2, 2)
    expected = torch.einsum("nm,mchw->nchw", dense[rows], images)
    close(mixes[rows].mixed(images), expected)
    close(mixes.mixed(images, rows), expected)
    total = torch.ones_like(images)
    mixes.add(total, expected, rows)
    close(total, 1 + torch.einsum("nm,nchw->mchw", dense[rows], expected))


@given(SIZES)
def test_energies_and_leverages_are_sums_of_squares(sizes: tuple[int, int, int]) -> None:
    mixes = SparseMixing.of(some_mixes(*sizes)[1])
    dense = some_mixes(*sizes)[1]
    noise = 0.5 + torch.rand(sizes[0])
    energies = (dense.square() / noise[:, None]).sum(dim=0)
    close(mixes.energies(noise), energies)
    leverages = dense / noise[:, None] / (energies + 0.3)
    close(mixes.leverages(noise, 0.3), leverages.gather(1, mixes.members))


@given(SIZES)
def test_a_matrix_gives_its_mixes(sizes: tuple[int, int, int]) -> None:
    _, dense = some_mixes(*sizes)
    mixes = SparseMixing.of(dense)
    assert mixes.images == sizes[1]
    assert mixes.members.shape[1] == max(1, int((dense != 0).sum(dim=1).max()))
    close(mixes.mixed(torch.eye(sizes[1])), dense)


def test_no_encodings_have_no_mixes() -> None:
    mixes = SparseMixing.of(torch.zeros(0, 4))
    assert list(mixes.blocks) == []
    assert mixes.summed(torch.zeros(0, 3, 2, 2)).shape == (4, 3, 2, 2)


def test_blocks_are_all_encodings_in_order() -> None:
    mixes, _ = some_mixes(2 * ROWS + 5, 20, 2)
    blocks = list(mixes.blocks)
    assert [row for rows in blocks for row in range(2 * ROWS + 5)[rows]] == list(
        range(2 * ROWS + 5)
    )
    assert len(blocks) == 3


@given(SIZES)
def test_solved_images_are_those_of_weighted_least_squares(sizes: tuple[int, int, int]) -> None:
    mixes, dense = some_mixes(*sizes)
    noise, ridge = 0.5 + torch.rand(sizes[0]), 0.2
    encodings = torch.randn(sizes[0], 1, 2, 2)
    sums = mixes.summed(encodings / noise[:, None, None, None])
    found = mixes.solved(sums, noise, ridge, torch.randn_like(sums), 60)
    # The penalty as rows of its own: each value of an image is measured as 0.
    rows = torch.cat([dense / noise.sqrt()[:, None], ridge**0.5 * torch.eye(sizes[1])])
    values = encodings.flatten(1) / noise.sqrt()[:, None]
    values = torch.cat([values, torch.zeros(sizes[1], 4)])
    expected = torch.linalg.lstsq(rows.double(), values.double()).solution.float()
    torch.testing.assert_close(found.flatten(1), expected, atol=3e-3, rtol=3e-3)


def test_steps_reduce_the_error_and_none_keeps_the_start() -> None:
    mixes, _ = some_mixes(300, 20, 2)
    noise, truth = torch.ones(300), torch.randn(20, 1, 2, 2)
    sums = mixes.summed(mixes.mixed(truth)) + 0.2 * truth
    start = torch.zeros_like(truth)
    assert torch.equal(mixes.solved(sums, noise, 0.2, start, 0), start)
    errors = [
        float((mixes.solved(sums, noise, 0.2, start, steps) - truth).square().sum())
        for steps in (0, 1, 3, 10)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * errors[0]


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_leverages_tell_what_an_encoding_adds_to_its_images(ridge: float) -> None:
    """Against a fit without the encoding, in a design in which no two share both images."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.triu_indices(40, 40, 1)
    coefficients = 0.2 + 0.4 * torch.rand(len(first), 2, generator=generator)
    mixes = SparseMixing(torch.stack([first, second], dim=1), coefficients, 40)
    noise = 0.5 + torch.rand(len(first), generator=generator)
    encodings = torch.randn(len(first), 1, 1, 5, generator=generator)

    def fitted(precision: Tensor) -> Tensor:
        sums = mixes.summed(encodings * precision[:, None, None, None])
        return mixes.solved(sums, 1 / precision, ridge, torch.zeros_like(sums), 200)

    whole, leverages = fitted(1 / noise), mixes.leverages(noise, ridge)
    own = (leverages * coefficients).sum(dim=1)
    for row in (0, 17, 300):
        without = (1 / noise).index_fill(0, torch.tensor(row), 0.0)
        left = mixes.mixed(fitted(without.clamp(min=1e-9)))[row]
        fit = mixes.mixed(whole)[row]
        # What the fit without it gives, from the fit with it alone.
        found = (fit - own[row] * encodings[row]) / (1 - own[row])
        assert float((found - left).norm()) < 0.2 * float((fit - left).norm())


def test_memory_is_linear_in_images_and_encodings() -> None:
    count = 20_000
    generator = torch.Generator().manual_seed(0)
    mixes = SparseMixing(
        torch.randint(count, (count, 2), generator=generator),
        torch.rand(count, 2, generator=generator),
        count,
    )
    images, noise = torch.randn(count, 1, 2, 2), torch.ones(count)

    def run() -> Tensor:
        sums = mixes.summed(mixes.mixed(images))
        mixes.leverages(noise, 0.1)
        return mixes.solved(sums, noise, 0.1, sums, 2)

    # The pairs of images of each encoding: four numbers of 64 bits.
    assert largest_tensor(run)[1] <= count * 2**2 * 2

"""Sparse sums against the dense products that they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from instahide.attacks.reconstruction.recovery.sparse_mixing import RIDGE, ROWS, SparseMixing


def some_weights(encodings: int, images: int, held: int) -> Tensor:
    """(n, m), nothing in some rows and in some columns."""
    generator = torch.Generator().manual_seed(encodings + images)
    weights = torch.zeros(encodings, images)
    members = torch.randint(images, (encodings, held), generator=generator)
    weights.scatter_(1, members, torch.rand(encodings, held, generator=generator))
    weights[::7], weights[:, ::5] = 0, 0
    return weights


@given(st.integers(1, 2 * ROWS + 3), st.integers(1, 40), st.integers(1, 4))
def test_sums_are_those_of_the_matrix(encodings: int, images: int, held: int) -> None:
    weights = some_weights(encodings, images, held)
    mixes = SparseMixing(weights)
    shown, seen = torch.randn(images, 2, 3, 4), torch.randn(encodings, 2, 3, 4)
    torch.testing.assert_close(
        mixes.mixed(shown), torch.einsum("nm,mchw->nchw", weights, shown), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        mixes.summed(seen), torch.einsum("nm,nchw->mchw", weights, seen), atol=1e-3, rtol=1e-4
    )


def test_parts_are_all_encodings_in_order() -> None:
    mixes = SparseMixing(some_weights(2 * ROWS + 5, 20, 2))
    together = [number for part in mixes.parts for number in range(2 * ROWS + 5)[part.rows]]
    assert together == list(range(2 * ROWS + 5))
    assert len(mixes.parts) == 3


def test_ridge_gives_the_images_of_weighted_least_squares() -> None:
    weights = some_weights(300, 20, 2)
    noise, seen = torch.rand(300) + 0.5, torch.randn(300, 1, 2, 2)
    mixes = SparseMixing(weights)
    found = mixes.ridge(noise) @ mixes.summed(seen / noise[:, None, None, None]).flatten(1)
    # The same as rows of their own: each value of an image is measured as 0, with that precision.
    rows = torch.cat([weights / noise.sqrt()[:, None], RIDGE**0.5 * torch.eye(20)])
    values = torch.cat([seen.flatten(1) / noise.sqrt()[:, None], torch.zeros(20, 4)])
    expected = torch.linalg.lstsq(rows.double(), values.double()).solution.float()
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-4)

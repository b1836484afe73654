"""The exact attack finds every mix, under masks too, at the cost that its formula says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from experiments.theory.meet_in_the_middle import meet_in_the_middle
from instahide.data import ImageTable
from instahide.encryption.known_keys import encode_with_known_keys
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


def mixed(
    images: int, k: int, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], list[int]]:
    """A masked mix, its pool and coefficients, and the rows that it is of."""
    generator = np.random.default_rng(seed)
    pool = generator.standard_normal((images, 16))
    coefficients = generator.dirichlet(np.ones(k))
    rows = generator.permutation(images)[:k]
    signs = generator.choice([-1, 1], 16)
    return signs * (coefficients @ pool[rows]), pool, coefficients, rows.tolist()


@pytest.mark.slow
@given(images=st.integers(5, 14), k=st.integers(2, 4), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_it_finds_what_trying_all_mixes_finds(images: int, k: int, seed: int) -> None:
    encoding, pool, coefficients, _ = mixed(images, k, seed)
    every = [
        list(rows)
        for rows in itertools.permutations(range(images), k)
        if np.allclose(np.abs(coefficients @ pool[list(rows)]), np.abs(encoding), atol=1e-5)
    ]
    assert meet_in_the_middle(encoding, pool, coefficients).mixes.tolist() == every


def test_real_encodings_fall() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(40) % 2)
    made = encode_with_known_keys(Scheme.inside(4), images, None, np.arange(3))
    for number in range(3):
        found = meet_in_the_middle(
            made.encoded.images[number].reshape(-1).numpy(),
            images.normalized().reshape(40, -1),
            made.coefficients[number],
        )
        assert found.mixes.tolist() == [made.partners[number].tolist()]


@pytest.mark.parametrize("k", [2, 4])
def test_its_cost_grows_as_the_formula_says(k: int) -> None:
    sizes = np.asarray([50, 100, 200, 400])
    steps = []
    for size in sizes:
        encoding, pool, coefficients, rows = mixed(int(size), k)
        found = meet_in_the_middle(encoding, pool, coefficients, tolerance=1e-10)
        assert found.mixes.tolist() == [rows]
        assert found.half_sums == 2 * math.perm(int(size), k // 2)
        steps.append(found.half_sums + found.compared)
    slope = np.polyfit(np.log(sizes), np.log(steps), 1)[0]
    assert slope == pytest.approx(k / 2, abs=0.1)


def test_it_refuses_what_does_not_fit() -> None:
    with pytest.raises(InstaHideError, match="toy sizes"):
        meet_in_the_middle(np.ones(2), np.ones((10_000, 2)), np.full(4, 0.25))

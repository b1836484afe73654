"""Draws for encoders have the distributions that they state, and never repeat."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from instahide.encryption.encoders.secret_random import SecretRandom

#: A test of a right distribution fails with this probability.
CHANCE = 1e-6


def test_the_distributions_are_those_stated() -> None:
    random, count = SecretRandom(), 20_000
    samples = {
        "uniform": random.uniform((count,)),
        "norm": random.normal((count,), 2.0) / 2.0,
        "laplace": random.laplace((count,), 3.0) / 3.0,
    }
    for name, values in samples.items():
        assert stats.kstest(values, name).pvalue > CHANCE
    wholes = random.integers(7, (count,))
    assert stats.chisquare(np.bincount(wholes, minlength=7)).pvalue > CHANCE
    signs = random.signs((count,))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert stats.binomtest(int((signs > 0).sum()), count).pvalue > CHANCE


def test_laplace_noise_has_no_largest_value() -> None:
    """It gives differential privacy with delta = 0, which noise with an end does not."""

    class Last:
        """Draws the word of the smallest number, ``times`` times, and then that of the largest."""

        def __init__(self, times: int) -> None:
            self.left = times

        def next_block(self) -> Last:
            return self

        def words(self, _: object, count: int) -> NDArray[np.uint64]:
            self.left -= 1
            return np.full(count, 2**64 - 1 if self.left >= 0 else 0, np.uint64)

    for times in range(1, 6):
        drawn = SecretRandom(keys=Last(times)).laplace((1,), 2.0)  # type: ignore[arg-type]
        assert drawn == pytest.approx(2.0 * 64 * times * np.log(2))


def test_permutations_are_uniform() -> None:
    found = SecretRandom().permutations(12_000, 3)
    assert (np.sort(found, axis=1) == np.arange(3)).all()
    counts = np.unique(found @ np.array([9, 3, 1]), return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > CHANCE


def test_partners_are_others_and_all_different() -> None:
    rows = np.arange(5).repeat(2000)
    found = SecretRandom().partners(rows, 3, 5)
    assert np.array_equal(found[:, 0], rows)
    assert all(len(set(row)) == 3 for row in found.tolist())
    others = np.bincount(found[rows == 0, 1:].reshape(-1), minlength=5)
    assert others[0] == 0
    assert stats.chisquare(others[1:]).pvalue > CHANCE


def test_no_draw_comes_twice_and_none_is_shown() -> None:
    random = SecretRandom()
    assert random.root() != random.root()
    assert not np.array_equal(random.uniform((8,)), random.uniform((8,)))
    assert not np.array_equal(SecretRandom().uniform((8,)), SecretRandom().uniform((8,)))
    assert repr(random) == "SecretRandom(hidden)"
    with pytest.raises(TypeError, match="drawn twice"):
        pickle.dumps(random)

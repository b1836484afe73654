"""DP-InstaHide: the mechanism, and its guarantee against exact small cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from instahide import ImageTable, open_split
from instahide.encryption.encoders.base import EncoderInput, Published
from instahide.encryption.encoders.rivals.dp_instahide import DPInstaHide
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.encryption.privacy import max_partner_count
from instahide.errors import SchemeError

#: One value, whose normalized range is 1.
ONE_VALUE = Published(images=5, shape=(1, 1, 1), std=(1.0,), copies=1)


@pytest.fixture(scope="module")
def digits() -> ImageTable:
    return open_split("digits").train.subset(np.arange(60))


def test_an_encoding_is_the_mean_of_its_images_plus_laplace_noise(digits: ImageTable) -> None:
    method, random = DPInstaHide(k=3, noise=0.7), SecretRandom()
    made = method.encode(EncoderInput(digits), np.arange(60).repeat(5), None, random)
    parts = digits.normalized(made.rows.reshape(-1)).reshape(300, 3, 1, 8, 8)
    noise = (made.images.numpy() - parts.mean(axis=1)).reshape(-1) / 0.7
    assert stats.kstest(noise, "laplace").pvalue > 1e-6
    assert (made.coefficients == np.float32(1 / 3)).all()


def test_without_noise_and_partners_it_is_the_image(digits: ImageTable) -> None:
    made = DPInstaHide(k=1, noise=0.0).encode(
        EncoderInput(digits), np.arange(60), None, SecretRandom()
    )
    assert torch.equal(made.images, torch.from_numpy(digits.normalized()))


def test_one_encoding_alone_has_the_epsilon_of_the_laplace_mechanism() -> None:
    """The supremum of the log ratio of two Laplace densities a distance apart."""
    method = DPInstaHide(k=1, noise=0.25)
    grid = np.linspace(-20, 20, 4001)
    ratio = stats.laplace.logpdf(grid, 0, 0.25) - stats.laplace.logpdf(grid, 1, 0.25)
    assert method.epsilon(ONE_VALUE, 1e-5) == pytest.approx(np.abs(ratio).max())


def test_more_values_and_encodings_add_up_and_partners_count() -> None:
    published = Published(images=1000, shape=(3, 4, 5), std=(0.5, 0.25, 1.0), copies=7)
    one = 4 * 5 * (2 + 4 + 1) / (4 * 0.5)
    counted = 7 + max_partner_count(7 * 3, 1e-5)
    assert DPInstaHide(k=4, noise=0.5).epsilon(published, 1e-5) == pytest.approx(counted * one)
    assert math.isinf(DPInstaHide(k=4, noise=0.0).epsilon(published, 1e-5))


def density(values: NDArray[np.float64], first: int, k: int, noise: float) -> NDArray[np.float64]:
    """The density of an encoding of image ``first``, on a grid, over all choices of partners."""
    grid = np.linspace(-15, 15, 6001)
    others = [row for row in range(len(values)) if row != first]
    mixes = [np.mean(values[[first, *chosen]]) for chosen in itertools.combinations(others, k - 1)]
    return np.mean([stats.laplace.pdf(grid, mean, noise) for mean in mixes], axis=0)


@pytest.mark.parametrize(("k", "noise"), [(2, 0.1), (3, 0.3), (4, 1.0), (5, 0.2)])
def test_with_secret_partners_no_density_ratio_passes_the_bound(k: int, noise: float) -> None:
    """All data sets of five values 0 or 1, exactly; the bound is reached for one of them."""
    method, worst = DPInstaHide(k=k, noise=noise), 0.0
    for bits in itertools.product((0.0, 1.0), repeat=4):
        one, other = (np.array([changed, *bits]) for changed in (0.0, 1.0))
        # The encodings of all five images are independent, so their largest ratios add up.
        ratios = [
            np.abs(np.log(density(one, first, k, noise) / density(other, first, k, noise))).max()
            for first in range(5)
        ]
        worst = max(worst, sum(ratios))
    bound = method.secret_partners_epsilon(ONE_VALUE)
    assert worst <= bound * (1 + 1e-9)
    assert worst >= 0.5 * bound
    assert bound <= method.epsilon(ONE_VALUE, 1e-5)


def test_mixing_more_images_makes_the_guarantee_stronger() -> None:
    published = Published(images=50_000, shape=(1, 1, 1), std=(1.0,), copies=1)
    found = [DPInstaHide(k=k, noise=0.5).secret_partners_epsilon(published) for k in (1, 2, 4, 8)]
    # The image has a share of 1/k in its own encoding.
    assert all(later < earlier for earlier, later in itertools.pairwise(found[1:]))


def test_a_large_epsilon_does_not_overflow() -> None:
    published = Published(images=1000, shape=(3, 32, 32), std=(0.2,) * 3, copies=1)
    found = DPInstaHide(k=4, noise=0.01).secret_partners_epsilon(published)
    one = 3 * 32 * 32 / 0.2 / (4 * 0.01)
    assert found == pytest.approx(one + 999 * (one + math.log(3 / 999)))


def test_a_mix_of_more_images_than_there_are_is_refused(digits: ImageTable) -> None:
    few = EncoderInput(digits.subset(np.arange(3)))
    with pytest.raises(SchemeError, match="there are 3"):
        DPInstaHide(k=4).encode(few, np.arange(3), None, SecretRandom())

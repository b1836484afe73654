"""Error floors against closed forms, exact small cases, and estimators that know every key."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2

from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.guarantees.error_floor import (
    floor_statement,
    largest_loss_for,
    psnr_ceiling,
    unbiased_floor,
)
from instahide.encryption.known_keys import encode_with_known_keys
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

#: A false alarm, at most so often in each test.
ALARM = 1e-8


def images(channels: int = 1, count: int = 12, side: int = 8) -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, side, side), np.uint8)
    pixels[:, 0] //= 2  # so that channels have different deviations
    return ImageTable.from_arrays(pixels, np.arange(count) % 3)


def test_the_floor_is_noise_squared_over_the_sum_of_squared_coefficients() -> None:
    """For one channel exactly; in normalized units without the std."""
    table, scheme = images(), Scheme.inside(4, noise=1.7)
    squares = 0.83
    loss = squares * mu_squared_rate(scheme, table.shape, table.std)
    expected = table.std[0] ** 2 * 1.7**2 / squares
    assert unbiased_floor(loss, 64) == pytest.approx(expected, rel=1e-12)


def test_the_floor_of_several_channels_is_at_most_the_exact_bound() -> None:
    """The exact Cramer-Rao bound is an arithmetic mean over channels, the floor a harmonic one."""
    table, scheme = images(channels=3), Scheme.inside(2, noise=1.0)
    floor = unbiased_floor(mu_squared_rate(scheme, table.shape, table.std), 3 * 64)
    exact = np.mean(np.square(table.std))
    assert 0.5 * exact < floor <= exact


def test_a_limit_and_its_floor_belong_together() -> None:
    assert unbiased_floor(largest_loss_for(0.03, 192), 192) == pytest.approx(0.03)
    assert unbiased_floor(math.inf, 64) == 0.0
    assert unbiased_floor(0.0, 64) == math.inf
    assert psnr_ceiling(0.01) == pytest.approx(20)


@pytest.mark.parametrize("min_mse", [0.0, -1.0, math.inf, math.nan])
def test_a_floor_that_is_none_is_refused(min_mse: float) -> None:
    with pytest.raises(InstaHideError, match="cannot be a floor"):
        largest_loss_for(min_mse, 64)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_least_squares_estimator_told_everything_reaches_the_floor_and_no_more(
    mask: bool, channels: int
) -> None:
    """The attacker knows all keys but the noise, and all other images: the bound is tight.

    With all else known, the errors of the estimator are normal, with the variance of the bound. So
    the mean of their squares is chi-squared, and its deviation is known.
    """
    table, copies = images(channels), 20
    scheme = Scheme.inside(3, noise=0.8, mask=mask)
    rows = np.zeros(copies, np.int64)
    made = encode_with_known_keys(scheme, table, None, rows)
    own = made.coefficients[:, 0].astype(np.float64)
    parts = table.normalized()[made.partners[:, 1:]]
    others = np.einsum("nk,nkchw->nchw", made.coefficients[:, 1:], parts)
    signs = np.where(made.negated, -1.0, 1.0)
    seen = signs * made.encoded.images.numpy() - others
    estimate = np.einsum("n,nchw->chw", own, seen) / (own**2).sum()

    exposure = Exposure(len(table))
    exposure.record(made.partners, made.coefficients)
    assert exposure.squares[0] == pytest.approx((own**2).sum(), rel=1e-6)
    loss = exposure.squares[0] * mu_squared_rate(scheme, table.shape, table.std)
    errors = (estimate - table.normalized()[0]) * np.reshape(table.std, (-1, 1, 1))
    values = errors.size
    ratio = np.square(errors).mean() / unbiased_floor(loss, values)
    # With three channels the floor is below the exact bound, so that the ratio is above 1. The
    # channel with the largest errors has a third of the values.
    low, high = chi2.ppf([ALARM, 1 - ALARM], values // channels) / (values // channels)
    assert low < ratio
    if channels == 1:
        assert ratio < high


def test_a_biased_estimator_is_below_the_unbiased_floor() -> None:
    """What the statement says: it is no floor for biased estimators. A constant shows it."""
    table, scheme = images(), Scheme.inside(4, noise=20.0)
    encoder = Encoder(scheme, table)
    encoder.encode(np.arange(len(table)))
    loss = encoder.exposure.squares.max() * mu_squared_rate(scheme, table.shape, table.std)
    constant = float(np.square(table.pixels[:, 0] / 255 - table.mean[0]).mean())
    assert constant < unbiased_floor(loss, 64)
    assert "none for biased ones" in floor_statement(unbiased_floor(loss, 64), noise=True)


def test_statements_say_no_more_than_is_known() -> None:
    assert floor_statement(1.0, noise=False) == "Error floor: none (no noise added)"
    assert floor_statement(0.0, noise=True).startswith("Error floor: none (some encodings")
    assert floor_statement(math.inf, noise=True).startswith("Error floor: none claimed")
    assert floor_statement(None, noise=True, scope="; ask") == "Error floor: not known here; ask"


@pytest.mark.parametrize("floor", [1.0, 0.0123456, 3.14159e-7, 12345.6, 0.99999])
def test_a_floor_is_rounded_down_and_a_ceiling_up(floor: float) -> None:
    words = floor_statement(floor, noise=True).replace(",", "").split()
    stated = float(words[words.index("least") + 1])
    ceiling = float(words[words.index("dB") - 1])
    assert 0.98 * floor <= stated <= floor
    assert psnr_ceiling(floor) <= ceiling

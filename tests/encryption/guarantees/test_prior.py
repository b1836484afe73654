"""The floor that rests on a prior: exact where it is as assumed, vacuous where it must be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instahide.data import ImageTable, open_split
from instahide.encryption.guarantees.error_floor import unbiased_floor
from instahide.encryption.guarantees.prior import PixelPrior, estimate_prior
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


def noisy(deviation: float, channels: int = 1, count: int = 200) -> ImageTable:
    """Gray images whose values are independent normals, which nothing predicts."""
    generator = np.random.default_rng(0)
    values = 0.5 + deviation * generator.standard_normal((count, channels, 8, 8))
    pixels = (255 * values).round().clip(0, 255).astype(np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count) % 2)


@pytest.mark.parametrize("loss", [1.0, 100.0, 1e4])
def test_equal_variances_give_van_trees_inequality(loss: float) -> None:
    prior = PixelPrior(np.full((10, 64), 0.04), 20)
    assert prior.floor(loss) == pytest.approx(1 / (loss / 64 + 1 / 0.04), rel=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_values_that_nothing_predicts_have_about_their_own_variance(channels: int) -> None:
    prior = estimate_prior(noisy(0.1, channels))
    assert prior.variances.shape == (100, channels * 64)
    assert prior.deviation == pytest.approx(0.1, rel=0.1)


def test_the_posterior_mean_of_a_normal_prior_does_not_beat_it() -> None:
    """The best of all estimators, with the true prior; its error is the closed form."""
    prior = estimate_prior(noisy(0.1))
    for noise in (0.01, 0.1, 1.0):
        best = 1 / (1 / noise**2 + 1 / 0.1**2)
        floor = prior.floor(64 / noise**2)
        assert 0.3 * best < floor < best


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("std", [(0.05, 1.0, 1.0), (0.2, 0.25, 0.3), (1.0, 1.0, 0.02)])
def test_no_channel_is_given_the_information_of_another(
    std: tuple[float, float, float], noise: float
) -> None:
    """The best estimator of normal values, which differ most in the first channel."""
    generator, deviations = np.random.default_rng(0), np.array([0.1, 0.01, 0.02])
    shape = (500, 3, 8, 8)
    values = 0.5 + deviations[:, None, None] * generator.standard_normal(shape)
    prior = estimate_prior(ImageTable.from_arrays((255 * values).round().astype(np.uint8)))
    loss = mu_squared_rate(Scheme.plain(noise=noise), shape[1:], std)
    errors = noise**2 * np.square(std)[:, None, None]
    seen = values + np.sqrt(errors) * generator.standard_normal(shape)
    weights = np.square(deviations)[:, None, None]
    best = np.square(0.5 + weights / (weights + errors) * (seen - 0.5) - values).mean()
    assert prior.floor(loss) <= prior.floor(loss, std) < best
    # Not vacuous: as near as with one channel.
    assert prior.floor(loss, std) > 0.3 * best


def test_the_std_of_other_channels_is_refused() -> None:
    with pytest.raises(InstaHideError, match="2 standard deviations, and 3 channels"):
        estimate_prior(noisy(0.1, 3)).floor(1.0, (0.2, 0.2))


def test_values_that_are_predicted_exactly_leave_no_floor() -> None:
    """Ramps are linear in their neighbors, and black and white are known for certain."""
    generator = np.random.default_rng(0)
    starts = generator.integers(0, 100, (60, 1, 1, 1))
    values = starts + generator.integers(1, 5, (60, 1, 1, 1)) * np.arange(8)
    smooth = ImageTable.from_arrays(
        np.broadcast_to(values, (60, 1, 8, 8)).astype(np.uint8), np.arange(60) % 2
    )
    assert estimate_prior(smooth).floor(64.0) < 1e-3
    binary = ImageTable.from_arrays(
        255 * generator.integers(0, 2, (60, 1, 8, 8)).astype(np.uint8), np.arange(60) % 2
    )
    assert estimate_prior(binary).floor(64.0) == 0.0
    assert "none (too many values" in estimate_prior(binary).statement(64.0)


def test_it_is_never_above_the_unbiased_floor_nor_the_variance() -> None:
    images = open_split("digits").train
    prior = estimate_prior(images)
    variance = float(np.square(images.std).mean())
    floors = [prior.floor(loss) for loss in (1.0, 1e2, 1e4, 1e6)]
    assert floors == sorted(floors, reverse=True)
    for floor, loss in zip(floors, (1.0, 1e2, 1e4, 1e6), strict=True):
        assert 0 < floor < min(variance, unbiased_floor(loss, 64))
    assert prior.floor(math.inf) == 0.0


def test_the_statement_says_that_it_rests_on_the_prior() -> None:
    prior = estimate_prior(noisy(0.1))
    said = prior.statement(100.0)
    assert "rests on a prior estimated from" in said
    assert "is false if" in said
    assert all(prior.statement(loss).endswith("none") for loss in (None, 0.0, math.inf))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InstaHideError, match="too few to estimate a prior"):
        estimate_prior(noisy(0.1, count=19))


def test_volumes_have_a_prior_too() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 1, 4, 6, 6), np.uint8)
    prior = estimate_prior(ImageTable.from_arrays(pixels, np.arange(40) % 2))
    assert prior.variances.shape == (20, 144)
    assert 0 < prior.floor(144.0) < 1 / 12

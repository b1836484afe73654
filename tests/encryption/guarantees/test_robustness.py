"""Reconstruction robustness: against closed forms, exact cases, and simulated attacks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from instahide.encryption.guarantees.robustness import robustness_statement, success_bound
from instahide.encryption.privacy import sensitivity
from instahide.errors import InstaHideError

TRIALS = 20_000
#: A correct bound fails a test with at most this probability.
ERROR_RATE = 1e-6


@pytest.mark.parametrize("baseline", [1e-6, 0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("loss", [0.01, 1.0, 4.0, 100.0])
def test_the_bound_is_the_blow_up_function_of_two_normal_distributions(
    baseline: float, loss: float
) -> None:
    """The largest P(E) of events with Q(E) = kappa, for means mu / 2 apart (Neyman, Pearson)."""
    threshold = norm.isf(baseline)
    assert success_bound(loss, baseline) == pytest.approx(
        norm.sf(threshold - math.sqrt(loss) / 2), rel=1e-9
    )


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0, 4.0])
def test_two_images_at_opposite_corners_make_it_exact(noise: float) -> None:
    """Black or white with equal chance: the best attack succeeds as often as the bound allows."""
    apart = sensitivity((1, 2, 2), [1.0])
    assert apart == 2.0
    best = norm.cdf(apart / (2 * noise))
    assert success_bound((apart / noise) ** 2, 0.5) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("values", [1, 2, 4, 8])
@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_no_exact_recovery_of_random_black_and_white_images_beats_it(
    values: int, noise: float
) -> None:
    """Uniform over all corners, kappa = 2^-values; the best attack rounds every value."""
    baseline = 0.5**values
    best = norm.cdf(0.5 / noise) ** values
    assert best <= success_bound(values / noise**2, baseline) * (1 + 1e-12)


@pytest.mark.parametrize("radius", [0.05, 0.2])
@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_no_estimate_of_a_uniform_value_beats_it(radius: float, noise: float) -> None:
    """A prior without atoms: uniform on [0, 1], success within the radius, kappa = 2 radius.

    The best attack takes the window with the most posterior mass. A one-sided binomial test at
    `ERROR_RATE`: the bound is refuted if so many successes were that unlikely under it.
    """
    generator = np.random.default_rng(0)
    truth = generator.random(TRIALS)
    seen = truth + noise * generator.standard_normal(TRIALS)
    guess = np.clip(seen, radius, 1 - radius)
    successes = int((np.abs(guess - truth) <= radius).sum())
    bound = success_bound(1 / noise**2, 2 * radius)
    assert binom.sf(successes - 1, TRIALS, bound) > ERROR_RATE
    assert successes / TRIALS > 2 * radius


def test_the_whole_sensitivity_would_be_a_weaker_bound_and_less_than_half_a_false_one() -> None:
    """Half of it is what the derivation gives, and with two images less is refuted."""
    noise = 0.7
    best = norm.cdf(1 / (2 * noise))
    assert norm.cdf(0.49 / noise) < best
    assert success_bound(1 / noise**2, 0.5) == pytest.approx(best)


@pytest.mark.parametrize("baseline", [0.0, 1.0, -0.5, math.nan])
def test_a_baseline_that_is_no_chance_is_refused(baseline: float) -> None:
    with pytest.raises(InstaHideError, match="not between 0 and 1"):
        success_bound(1.0, baseline)


def test_statements_say_no_more_than_is_known_and_round_up() -> None:
    assert "none (no noise added)" in robustness_statement(1.0, noise=False)
    assert "not known here" in robustness_statement(None, noise=True)
    assert "none claimed" in robustness_statement(0.0, noise=True)
    assert "none (some encodings" in robustness_statement(math.inf, noise=True)
    said = robustness_statement(4.0, 0.01, noise=True)
    stated = float(said.split("at most ")[1].split("%")[0])
    assert stated / 100 >= success_bound(4.0, 0.01)
    assert stated / 100 < 1.01 * success_bound(4.0, 0.01)
    assert "at most 100% with them, which is no protection" in robustness_statement(1e9, noise=True)
    assert "no protection" not in said

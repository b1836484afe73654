"""What noise guarantees: against closed forms, another accountant, and an attacker who tries."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, binom, norm

from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.known_keys import encode_with_known_keys
from instahide.encryption.privacy import (
    DELTA,
    LEAST_DELTA,
    delta_of,
    epsilon_of,
    epsilon_upper_bound,
    epsilon_with_labels_hidden,
    max_partner_count,
    mu_squared_rate,
    privacy_statement,
    sensitivity,
)
from instahide.encryption.scheme import LEAST_NOISE, MOST_NOISE, Scheme
from instahide.errors import InstaHideError

SHAPE = (1, 4, 4)


@pytest.mark.parametrize("mu", [0.01, 0.1, 0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_epsilon_is_that_of_the_analytic_gaussian_mechanism(mu: float, delta: float) -> None:
    epsilon = epsilon_of(mu**2, delta)
    # Balle and Wang (2018), theorem 8, by SciPy.
    log_outer = epsilon + norm.logcdf(-epsilon / mu - mu / 2)
    theirs = norm.cdf(mu / 2 - epsilon / mu) - math.exp(log_outer)
    assert theirs <= delta * (1 + 1e-6)
    if epsilon > 0:
        assert theirs == pytest.approx(delta, rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 1 << 48, 1 << 48, 1 << 48)])
@pytest.mark.parametrize("noise", [LEAST_NOISE, MOST_NOISE])
@pytest.mark.parametrize("std", [5e-324, 1e-200, 1.0, 1e200, 1.7e308])
def test_extreme_values_neither_overflow_nor_promise_perfect_privacy(
    shape: tuple[int, ...], noise: float, std: float
) -> None:
    scheme, stds = Scheme.inside(4, noise=noise), (std,) * shape[0]
    rate = mu_squared_rate(scheme, shape, stds)
    assert rate >= max(0.0, math.prod(shape) / std / std / noise**2) * (1 - 1e-9)
    for copies, delta in product((1, 1 << 48), (LEAST_DELTA, 0.5)):
        epsilon = epsilon_upper_bound(scheme, shape, stds, copies=copies, delta=delta)
        assert epsilon > 0
        assert "none claimed" not in privacy_statement(epsilon, delta, noise=True)


@pytest.mark.parametrize("delta", [5e-324, 1e-300, 1e-18, 0.9e-9])
def test_a_delta_below_what_finite_noise_gives_is_refused(delta: float) -> None:
    with pytest.raises(InstaHideError, match=r"delta = .* is too small.*at least 1e-09"):
        epsilon_upper_bound(Scheme.inside(4, noise=1.0), SHAPE, (1.0,), copies=2, delta=delta)
    with pytest.raises(InstaHideError, match="is too small"):
        epsilon_of(1.0, delta)


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 3.0])
def test_another_accountant_finds_the_same_epsilon(mu: float) -> None:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    # Five encodings whose squared shifts sum to mu^2. This accountant wants the radius of the ball
    # that records lie in, half of what replacing one may move.
    accountant.compose(dp_accounting.GaussianDpEvent(2 * math.sqrt(5) / mu), 5)
    assert epsilon_of(mu**2, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=0.01)


def test_epsilon_of_nothing_of_everything_and_of_very_much() -> None:
    assert epsilon_of(0.0) == 0.0
    assert epsilon_of(math.inf) == math.inf
    assert epsilon_of(1e8) == pytest.approx(1e8 / 2, rel=0.01)
    with pytest.raises(InstaHideError, match="not between 0 and 1"):
        epsilon_of(1.0, 1.5)


@pytest.mark.parametrize("epsilon", [0.0, 2.0, math.inf, None])
def test_without_noise_there_is_no_privacy_whatever_was_counted(epsilon: float | None) -> None:
    said = privacy_statement(epsilon, noise=False)
    assert said == "Differential privacy: none (no noise added)"


def test_the_statement_says_no_more_than_is_known() -> None:
    assert privacy_statement(math.inf, noise=True).startswith("Differential privacy: none (some")
    assert privacy_statement(0.0, noise=True).startswith("Differential privacy: none claimed")
    unknown = privacy_statement(None, noise=True, scope=", but to the ledger")
    assert unknown == "Differential privacy: not known here, but to the ledger"
    said = privacy_statement(2.0, noise=True, scope=", at most")
    assert said == "Differential privacy: epsilon = 2 at delta = 1e-05, at most"


@pytest.mark.parametrize(
    "epsilon", [1e-300, 1e-4, 0.0123449, 0.1, 1.0, 3.9501, 9.996, 99.91, 1234.5, 1e8 / 3]
)
def test_a_stated_epsilon_is_never_below_the_true_one(epsilon: float) -> None:
    words = privacy_statement(epsilon, noise=True).split()
    stated = float(words[words.index("=") + 1].replace(",", ""))
    assert stated >= epsilon
    assert stated <= max(epsilon * 1.01, 0.001)


def test_the_tail_beyond_an_epsilon_falls() -> None:
    tails = [delta_of(epsilon, 2.0) for epsilon in np.linspace(0, 20, 100)]
    assert all(high >= low >= 0 for high, low in pairwise(tails))


def test_no_two_images_are_further_apart_than_the_sensitivity() -> None:
    std = (0.2, 0.3, 0.5)
    black, white = (np.full((1, 3, 4, 5), value, np.uint8) for value in (0, 255))
    tables = [ImageTable(each, np.zeros(1, int), (), (0.4,) * 3, std) for each in (black, white)]
    apart = float(np.linalg.norm(tables[0].normalized() - tables[1].normalized()))
    assert apart == pytest.approx(sensitivity((3, 4, 5), std), rel=1e-6)


@pytest.mark.parametrize(("mean", "others"), [(1.0, 50), (3.0, 100), (90.0, 5000)])
@pytest.mark.parametrize("chance", [1e-3, 5e-6])
def test_more_partners_than_that_are_rare(mean: float, others: int, chance: float) -> None:
    most = max_partner_count(mean, chance)
    assert binom.sf(most, others, mean / others) <= chance
    assert max_partner_count(0.0, chance) == 0


@given(mean=st.floats(1e-3, 1e4), chance=st.floats(1e-12, 0.1))
def test_the_number_of_partners_is_the_first_that_the_bound_allows(
    mean: float, chance: float
) -> None:
    count = math.ceil(mean) + 1
    while count - mean - count * math.log(count / mean) > math.log(chance) + 1e-9:
        count += 1
    assert max_partner_count(mean, chance) in (count, count + 1)


@pytest.mark.parametrize("mean", [10**12, 2**63, 10**30])
def test_a_number_of_encodings_that_a_file_made_up_is_no_long_loop(mean: int) -> None:
    assert mean < max_partner_count(mean, 1e-6) < mean + 10 * math.isqrt(mean)


def test_beforehand_is_never_below_afterwards() -> None:
    """Over what the exposure counts: 100 images, of which each may be the worst."""
    scheme, images = Scheme.inside(3, noise=20.0), images_of(100)
    for copies in (1, 4):
        exposure = Exposure(100)
        encoder = Encoder(scheme, images, exposure=exposure)
        encoder.encode(np.tile(np.arange(100), copies))
        rate = mu_squared_rate(scheme, SHAPE, images.std)
        after = epsilon_of(rate * exposure.squares.max())
        assert after <= epsilon_upper_bound(scheme, SHAPE, images.std, copies=copies)
        limit = int(exposure.counts.max())
        assert after <= epsilon_upper_bound(scheme, SHAPE, images.std, copies=copies, limit=limit)


def test_hidden_labels_are_worth_no_more_than_the_encodings_of_others() -> None:
    scheme, std = Scheme.inside(4, noise=200.0), (0.3,)
    hidden = epsilon_with_labels_hidden(scheme, SHAPE, std, images=1000, copies=5)
    # Its own copies alone, from below; all its encodings at the bound, from above.
    alone = epsilon_of(5 * scheme.c1**2 * mu_squared_rate(scheme, SHAPE, std))
    seen = epsilon_upper_bound(scheme, SHAPE, std, copies=5)
    assert alone <= hidden < seen
    without_partners = replace(scheme, private_k=1)
    apart = epsilon_with_labels_hidden(without_partners, SHAPE, std, images=1000, copies=5)
    # Renyi accounting is a little loose.
    assert apart == pytest.approx(alone, rel=0.25)
    assert apart >= alone
    unprotected = replace(scheme, noise=0.0)
    assert epsilon_with_labels_hidden(unprotected, SHAPE, std, images=9, copies=1) == math.inf


# An attacker who tries.


def images_of(count: int, first: int = 0) -> ImageTable:
    """Images of the same random pixels at each call, but the first, which is all ``first``."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *SHAPE), np.uint8)
    pixels[0] = first
    return ImageTable(pixels, np.arange(count) % 2, ("a", "b"), (0.5,), (0.5,))


def scores(scheme: Scheme, first: int, runs: int) -> tuple[NDArray[np.float64], float]:
    """The likelihood ratio's exponent for each run, and mu^2 with the coefficient that it had.

    The encoder is the real one; the attacker is told partners, coefficients and masks, as the
    guarantee allows. One coefficient in all runs would be a law of its own: each run has its mu.
    """
    images = images_of(scheme.k, first)
    black, white = (images_of(scheme.k, value).normalized()[0] for value in (0, 255))
    made = encode_with_known_keys(scheme, images, None, np.zeros(runs, np.int64))
    signs = np.where(made.negated, -1.0, 1.0)
    seen = made.encoded.images.double().numpy() * signs
    shares = made.coefficients[:, 0].astype(float)[:, None, None, None]
    moved = shares * (white - black).astype(float)
    # The mixes as they are if the first image is black.
    others = images_of(scheme.k, 0).normalized()[made.partners].astype(float)
    middle = np.einsum("nk,nkchw->nchw", made.coefficients, others) + moved / 2
    ratio = ((seen - middle) * moved).sum(axis=(1, 2, 3)) / scheme.noise**2
    return ratio, float((shares**2).max() * mu_squared_rate(scheme, SHAPE, images.std))


def lower_bound(
    found: tuple[NDArray[np.float64], NDArray[np.float64]], delta: float, error: float
) -> float:
    """An epsilon that is not below this but with a chance of ``error`` (Clopper and Pearson).

    Of the thresholds for "it was white", the best; the error is shared between them.
    """
    white, black = found
    thresholds = np.quantile(np.concatenate(found), np.linspace(0.05, 0.95, 19))
    share = error / (2 * len(thresholds))
    best = 0.0
    for threshold in thresholds:
        hits, alarms = int((white > threshold).sum()), int((black > threshold).sum())
        least = beta.ppf(share, hits, len(white) - hits + 1) if hits else 0.0
        most = beta.ppf(1 - share, alarms + 1, len(black) - alarms)
        if least > delta:
            best = max(best, math.log((least - delta) / most))
    return best


def audited(k: int, deviations: float, runs: int) -> tuple[float, float]:
    """The attacker's lower bound and the accountant's epsilon, at delta = 1e-5.

    ``deviations``: the noise, over the sensitivity.
    """
    kind = Scheme.plain() if k == 1 else Scheme.inside(k)
    scheme = replace(kind, noise=deviations * sensitivity(SHAPE, (0.5,)))
    white, loss = scores(scheme, 255, runs)
    black, other = scores(scheme, 0, runs)
    return lower_bound((white, black), DELTA, 1e-7), epsilon_of(max(loss, other), DELTA)


#: (k, noise over sensitivity)
SETTINGS = list(product([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.5, 1.0]))


@pytest.mark.parametrize(("k", "deviations"), SETTINGS)
def test_no_attacker_passes_the_accountant(k: int, deviations: float) -> None:
    found, promised = audited(k, deviations, 2000)
    assert found <= promised


@pytest.mark.slow
@pytest.mark.parametrize(("k", "deviations"), SETTINGS)
def test_no_attacker_passes_the_accountant_with_many_runs(k: int, deviations: float) -> None:
    found, promised = audited(k, deviations, 200_000)
    assert found <= promised


def test_the_attacker_is_a_strong_one() -> None:
    """It finds so much that an accountant of a quarter would be caught out."""
    found, promised = audited(1, 0.5, 20_000)
    assert found > promised / 4
    nothing, _ = audited(1, 0.1, 2000)
    assert nothing > 4


def test_two_runs_are_told_apart_by_noise_alone() -> None:
    """Encodings of the same image differ in nothing but noise, so that the bound is 0."""
    scheme = Scheme.plain(noise=10.0)
    twins = scores(scheme, 0, 2000)[0], scores(scheme, 0, 2000)[0]
    assert lower_bound(twins, DELTA, 1e-7) == 0.0

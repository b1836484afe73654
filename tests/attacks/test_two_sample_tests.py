"""The tests see what is there, and see nothing where there is nothing, at their stated rate."""

from __future__ import annotations

import numpy as np
import pytest

from instahide.attacks.base import ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.two_sample_tests import StatisticalTests, _pairs, distances_test, values_test
from instahide.audit.ground_truth import observe
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

GROUPED = ThreatModel(public="none", grouped=True, encodings_per_image=200)


def figures_of(private: ImageTable, scheme: Scheme) -> dict[str, float]:
    observation, _ = observe(private, None, scheme, GROUPED)
    assert StatisticalTests().applies(observation) is None
    return dict(StatisticalTests().run(observation, Budget(), no_progress).statistics)


@pytest.mark.slow
def test_encodings_of_one_image_are_alike_under_mixup(private: ImageTable) -> None:
    figures = figures_of(private, Scheme.mixup(4))
    assert figures["distances_signed_p"] < 1e-6
    assert figures["classifier_signed_p"] < 1e-6
    assert figures["classifier_signed_effect"] > 0.7


@pytest.mark.slow
def test_signs_hide_it_and_absolute_values_do_not(private: ImageTable) -> None:
    """Effects vary from run to run by 0.005 and 0.012: all bounds are seven deviations away."""
    figures = figures_of(private, Scheme.inside(4))
    assert abs(figures["distances_signed_effect"]) < 0.02
    assert figures["distances_absolute_effect"] > 0.02
    assert 0.4 < figures["classifier_signed_effect"] < 0.6
    assert figures["classifier_absolute_effect"] > 0.7
    # A corrected p-value below one in a million by chance: once in a million runs, at most.
    assert figures["classifier_signed_p"] > 1e-6
    assert figures["classifier_absolute_p"] < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("test", [values_test, distances_test])
def test_p_values_of_noise_are_uniform(test: object) -> None:
    """Groups without a meaning: 60 p-values, of which 5% are below 0.05, 20 never are."""
    generator = np.random.default_rng(3)
    members = list(np.arange(160).reshape(10, 16))
    found = [
        test(generator.standard_normal((160, 30)).astype(np.float32), members)[0]  # type: ignore[operator]
        for _ in range(60)
    ]
    # More than 15 of 60 at 5%: once in 10^7.
    assert sum(p < 0.05 for p in found) <= 15
    assert max(found) > 0.5


def test_no_encoding_is_in_two_pairs() -> None:
    one, two = _pairs(list(np.random.default_rng(0).permutation(100).reshape(10, 10)))
    whole = np.concatenate([one, two]).reshape(-1)
    assert len(np.unique(whole)) == len(whole)
    assert len(one) == 20
    assert len(two) == 20


def test_it_needs_several_encodings_of_known_images(private: ImageTable) -> None:
    few, _ = observe(private, None, Scheme.inside(4), ThreatModel(public="none", grouped=True))
    blind, _ = observe(private, None, Scheme.inside(4), ThreatModel(public="none"))
    assert "fewer than" in str(StatisticalTests().applies(few))
    assert "does not know" in str(StatisticalTests().applies(blind))


def test_it_stops_with_its_budget(private: ImageTable) -> None:
    observation, _ = observe(private, None, Scheme.inside(4), GROUPED)
    budget = Budget(0)
    assert StatisticalTests().run(observation, budget, no_progress).statistics == {}
    assert budget.cut_short

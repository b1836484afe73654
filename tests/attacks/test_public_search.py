"""Public images are found in a Mixup; under the mask only their squares can be looked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instahide.attacks.base import EncodingObservation, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.public_search import PublicSearch, PublicSearchAbsolute, search
from instahide.attacks.whitening import Pool
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

MIXUP, CROSS = Scheme.cross(4, mask=False), Scheme.cross(4)


def seen(
    private: ImageTable, public: ImageTable, scheme: Scheme
) -> tuple[EncodingObservation, GroundTruth]:
    return observe(private, public, scheme, ThreatModel(encodings_per_image=3))


def rates(
    attack: PublicSearch, observation: EncodingObservation, truth: GroundTruth
) -> dict[str, float]:
    found = attack.run(observation, Budget(), no_progress)
    return dict(score(found, observation, truth).summary)


def test_public_images_of_a_mixup_are_found_and_taken_out(
    private: ImageTable, public: ImageTable
) -> None:
    """The rate is 0.99 with a deviation of 0.008 from run to run, over 120 images."""
    observation, truth = seen(private, public, MIXUP)
    found = PublicSearch().run(observation, Budget(), no_progress)
    assert score(found, observation, truth).summary["public_found"] >= 0.92
    real = torch.zeros(len(observation), len(public))
    real.scatter_(1, truth.partners[:, 2:], truth.coefficients[:, 2:])
    right = real.gather(1, found.rows)
    off = (found.coefficients - right)[right > 0.15].abs()
    assert float(off.mean()) < 0.05
    # What remains is the private images alone, which are less than half of these mixes.
    assert found.statistics["energy_left"] < 0.9


def test_what_remains_belongs_to_groups_where_they_are_known(
    private: ImageTable, public: ImageTable
) -> None:
    threat = ThreatModel(grouped=True, encodings_per_image=3)
    observation, truth = observe(private, public, MIXUP, threat)
    found = PublicSearch().run(observation, Budget(), no_progress)
    # By chance 1 in 20.
    assert score(found, observation, truth).summary["identified_mean"] > 0.2


def test_under_the_mask_the_same_search_is_at_chance(
    private: ImageTable, public: ImageTable
) -> None:
    observation, truth = seen(private, public, CROSS)
    # 120 picks, each right with 2 in 1,500: 7 or more once in 10^10.
    assert rates(PublicSearch(), observation, truth)["public_found_of_all"] < 7 / 120


@pytest.mark.usefixtures("same_keys")
def test_squares_do_better_than_chance_under_the_mask(
    private: ImageTable, public: ImageTable
) -> None:
    observation, truth = seen(private, public, CROSS)
    assert rates(PublicSearchAbsolute(), observation, truth)["public_found_of_all"] > 7 / 120


def test_the_search_is_the_whole_product_sorted(public: ImageTable) -> None:
    """Blocks and merges against one matrix and one sort."""
    pool = Pool(public.subset(slice(0, 300)))
    features = torch.randn(7, pool.mean.numel(), generator=torch.Generator().manual_seed(0))
    scores, rows = search(pool, pool.filters(features), 5)
    whole = pool.whitened(features) @ pool.whitened(pool.rows(slice(None))).T / pool.lengths
    expected = whole.topk(5, dim=1)
    torch.testing.assert_close(scores, expected.values, rtol=1e-3, atol=1e-3)
    assert bool((rows == expected.indices).float().mean() > 0.9)


def test_whitened_patches_have_covariance_one(public: ImageTable) -> None:
    pool = Pool(public)
    white = pool.whitened(pool.rows(slice(None)))
    covariance = (white.T @ white / len(white)).numpy()
    # But for the floor, which takes away from directions that hardly vary.
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.05
    assert covariance.diagonal().max() < 1.01


def test_it_applies_only_where_the_pool_is_known_and_used(
    private: ImageTable, public: ImageTable
) -> None:
    inside, _ = seen(private, public, Scheme.inside(4))
    unknown, _ = observe(private, public, CROSS, ThreatModel(public="none"))
    assert "no public images" in str(PublicSearch().applies(inside))
    assert "does not have" in str(PublicSearch().applies(unknown))


def test_it_hands_back_what_it_has_when_time_is_up(private: ImageTable, public: ImageTable) -> None:
    observation, _ = seen(private, public, MIXUP)
    budget = Budget(0)
    found = PublicSearch().run(observation, budget, no_progress)
    assert budget.cut_short
    assert found.rows.shape == (len(observation), 0)

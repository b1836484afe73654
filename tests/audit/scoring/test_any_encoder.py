"""Scores of linkage, matching and distinguishing, where the right figures are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.any_encoder.observation import Guesses, LinkageScores, MatchScores
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.any_encoder import guess_figures, linkage_figures, match_figures

IMAGES, COPIES = 20, 6


def truth(partners: Tensor, **changes: Tensor) -> GroundTruth:
    count, private_k = partners.shape
    nothing, images = torch.zeros(0), torch.arange(IMAGES * 4.0).reshape(IMAGES, 1, 2, 2)
    return GroundTruth(
        images, partners, torch.ones(count, private_k) / private_k,
        private_k, nothing, nothing, nothing, **changes,
    )  # fmt: skip


def encoded(seed: int = 0) -> Tensor:
    """(120, 1) the image of each encoding, in random order."""
    order = np.random.default_rng(seed).permutation(np.arange(IMAGES).repeat(COPIES))
    return torch.from_numpy(order)[:, None]


@pytest.mark.slow
def test_right_scores_link_everything_and_reversed_ones_nothing() -> None:
    images = encoded()
    same = (images == images.T).float()
    rows = torch.arange(len(images))
    for scores, area in ((same, 1.0), (-same, 0.0), (torch.zeros_like(same), 0.5)):
        found = linkage_figures(LinkageScores(rows, scores), truth(images))
        assert found["linkage_auc"] == area
    assert found["linkage_pairs_of_one_image"] == IMAGES * COPIES / 2
    assert 40 <= found["linkage_pairs_of_two_images"] <= 60


def test_some_encodings_can_be_compared() -> None:
    images = encoded()
    rows = torch.arange(40) + 17
    same = (images[rows] == images[rows].T).float()
    assert linkage_figures(LinkageScores(rows, same), truth(images))["linkage_auc"] == 1.0


def test_pairs_with_a_common_partner_are_not_taken_for_pairs_of_two_images() -> None:
    partner = torch.full((IMAGES * COPIES, 1), IMAGES - 1)
    images = torch.cat([encoded() % (IMAGES - 1), partner], dim=1)
    rows = torch.arange(len(images))
    assert linkage_figures(LinkageScores(rows, torch.zeros(120, 120)), truth(images)) == {}


def test_matches_count_one_encoding_of_each_image_in_the_attackers_order() -> None:
    images = encoded()
    known = torch.from_numpy(np.random.default_rng(1).permutation(IMAGES))
    scores = (images == known).float()
    found = match_figures(MatchScores(scores), truth(images, known_order=known))
    assert (found["matched"], found["matched_high"], found["matched_trials"]) == (1.0, 1.0, IMAGES)
    # The exact interval of 20 right answers of 20: the bound solves p^20 = 0.025.
    assert found["matched_low"] == pytest.approx(0.025 ** (1 / IMAGES))
    assert found["matched_by_chance"] == 1 / IMAGES
    assert found["matched_p"] == pytest.approx(IMAGES**-IMAGES)
    wrong = match_figures(MatchScores(-scores), truth(images, known_order=known))
    assert wrong["matched"] == 0.0


def test_any_image_of_a_mix_is_a_match() -> None:
    images = torch.cat([encoded(), (encoded() + 1) % IMAGES], dim=1)
    known = torch.arange(IMAGES)
    scores = (images[:, 1:] == known).float()
    found = match_figures(MatchScores(scores), truth(images, known_order=known))
    assert found["matched"] == 1.0
    assert found["matched_by_chance"] == 2 / IMAGES


def test_guesses_are_compared_with_the_coin() -> None:
    second = torch.tensor([True, False] * 50)
    right = second.float() * 2 - 1
    found = guess_figures(Guesses(right), truth(encoded(), second=second))
    assert found["distinguished"] == 1.0
    assert found["distinguished_p"] == pytest.approx(2.0**-100)
    half = torch.cat([right[:50], -right[50:]])
    found = guess_figures(Guesses(half), truth(encoded(), second=second))
    assert found["distinguished"] == 0.5
    assert found["distinguished_low"] < 0.41 < 0.59 < found["distinguished_high"]


@pytest.mark.parametrize("undecided", [0.0, math.nan])
def test_undecided_pairs_count_half_and_are_no_part_of_the_test(undecided: float) -> None:
    second = torch.tensor([True, False] * 50)
    scores = second.float() * 2 - 1
    scores[:70] = undecided
    found = guess_figures(Guesses(scores), truth(encoded(), second=second))
    assert found["distinguished"] == 0.65
    assert found["distinguished_p"] == pytest.approx(2.0**-30)
    assert (found["distinguished_trials"], found["distinguished_decided"]) == (100, 30)
    assert 0.5 < found["distinguished_low"] < 0.65 < found["distinguished_high"]
    wrong = guess_figures(Guesses(-scores), truth(encoded(), second=second))
    assert wrong["distinguished"] == pytest.approx(0.35)
    assert wrong["distinguished_p"] == 1.0
    assert wrong["distinguished_high"] == pytest.approx(1 - found["distinguished_low"])


@pytest.mark.parametrize("pairs", [1, 99, 100])
def test_an_attack_that_decides_nothing_is_the_coin(pairs: int) -> None:
    second = torch.arange(pairs) % 2 == 0
    found = guess_figures(Guesses(torch.zeros(pairs)), truth(encoded(), second=second))
    assert (found["distinguished"], found["distinguished_p"]) == (0.5, 1.0)
    assert found["distinguished_decided"] == 0
    assert found["distinguished_low"] < 0.5 < found["distinguished_high"]


@pytest.mark.slow
def test_intervals_hold_as_often_as_they_say() -> None:
    """Of guesses by a coin, the interval contains one half in at least 95%."""
    generator = torch.Generator().manual_seed(5)
    inside = 0
    for _ in range(300):
        second = torch.rand(60, generator=generator) < 0.5
        scores = torch.rand(60, generator=generator) - 0.5
        found = guess_figures(Guesses(scores), truth(encoded(), second=second))
        inside += found["distinguished_low"] <= 0.5 <= found["distinguished_high"]
    assert inside / 300 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.slow
def test_images_that_show_the_same_are_one() -> None:
    """Images 0 and 10, 1 and 11, ...: the attacker finds the picture, and never the right row."""
    images = encoded()
    known = truth(images, known_order=torch.arange(IMAGES))
    twins = replace(known, images=known.images[torch.arange(IMAGES) % 10])
    rows = torch.arange(len(images))
    scores = (images == (torch.arange(IMAGES) + 10) % IMAGES).float()
    assert match_figures(MatchScores(scores), known)["matched"] == 0
    assert match_figures(MatchScores(scores), twins)["matched"] == 1
    same = (images % 10 == images.T % 10).float()
    assert linkage_figures(LinkageScores(rows, same), known)["linkage_auc"] < 1
    assert linkage_figures(LinkageScores(rows, same), twins)["linkage_auc"] == 1

"""Figures of membership against counting by hand; candidates hide which of them were learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from instahide.attacks.base import ThreatModel
from instahide.audit.ground_truth import observe
from instahide.audit.scoring import membership
from instahide.audit.scoring.membership import membership_figures, with_candidates
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


def table(count: int, seed: int, side: int = 4) -> ImageTable:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, side, side), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count) % 2)


def test_figures_are_what_counting_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, learned = torch.randn(450, generator=generator), torch.arange(450) < 150
    scores = (scores + learned).round(decimals=1)  # Some are equal.
    found = membership_figures(scores, learned)
    inside, outside = scores[learned], scores[~learned]
    above = (inside[:, None] > outside).float() + 0.5 * (inside[:, None] == outside).float()
    assert found["auc"] == pytest.approx(float(above.mean()))
    rates = [
        (float((inside >= level).float().mean()), float((outside >= level).float().mean()))
        for level in scores.unique()
    ]
    best = max((1 + true - false) / 2 for true, false in rates)
    assert found["balanced_accuracy"] == pytest.approx(best)
    allowed = max(true for true, false in rates if false <= 0.01)
    assert found["true_at_1_percent_false"] == pytest.approx(allowed)
    # 300 others do not bear a thousandth.
    assert "true_at_01_percent_false" not in found


@pytest.mark.slow
def test_the_interval_covers_the_true_area_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 40 intervals of 93%, which few draws give, fewer than 27 cover it 3 times in 10^7."""
    monkeypatch.setattr(membership, "DRAWS", 60)
    generator = torch.Generator().manual_seed(1)
    area = 0.7602  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2).
    learned = torch.arange(160) < 80
    hits = 0
    for _ in range(40):
        found = membership_figures(torch.randn(160, generator=generator) + learned, learned)
        hits += found["auc_low"] <= area <= found["auc_high"]
    assert hits >= 27


def test_chance_has_more_than_a_half_in_hindsight() -> None:
    scores = torch.randn(200, generator=torch.Generator().manual_seed(2))
    found = membership_figures(scores, torch.arange(200) < 100)
    assert 0.5 < found["balanced_accuracy_by_chance"] < 0.65
    assert found["balanced_accuracy"] < found["balanced_accuracy_by_chance"] + 0.15


def test_candidates_are_mixed_and_the_truth_knows_them() -> None:
    members, others = table(30, 0), table(20, 1)
    seen = observe(members, None, Scheme.inside(2), ThreatModel(public="none"))
    observation, truth = with_candidates(seen, nn.Identity(), members, others)
    assert truth.learned is not None
    assert truth.learned.sum() == 30
    assert observation.candidates.mean == members.mean
    rows = zip(members.pixels, members.labels, strict=True)
    own = {row.tobytes(): int(label) for row, label in rows}
    candidates = observation.candidates
    for place, learned in enumerate(truth.learned):
        known = own.get(candidates.pixels[place].tobytes())
        assert known == (int(candidates.labels[place]) if learned else None)
    # In the order that they came: once in 10^13.
    assert not truth.learned[:30].all()


def test_candidates_of_two_shapes_are_refused() -> None:
    seen = observe(table(10, 0), None, Scheme.inside(2), ThreatModel(public="none"))
    for others in (table(10, 1, side=5), table(2, 1).subset(slice(0, 0))):
        with pytest.raises(InstaHideError, match="both groups must have images"):
            with_candidates(seen, nn.Identity(), table(10, 0), others)

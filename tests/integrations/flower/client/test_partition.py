"""Nodes that split one data set do so alike, and share nothing."""

from __future__ import annotations

import numpy as np
import pytest

from instahide.errors import InstaHideError
from instahide.integrations.flower.client.partition import partition

LABELS = np.arange(3000) % 10
SOME = LABELS[:300]


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_parts_are_disjoint_complete_and_the_same_for_everybody(alpha: float | None) -> None:
    parts = partition(LABELS, 4, alpha=alpha)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(LABELS)))
    for part, again in zip(parts, partition(LABELS, 4, alpha=alpha), strict=True):
        assert (part == again).all()


def test_alike_parts_have_all_classes_and_dirichlet_parts_differ() -> None:
    counts = [np.bincount(LABELS[part], minlength=10) for part in partition(LABELS, 3)]
    assert np.ptp(counts) <= 1
    counts = [np.bincount(LABELS[part], minlength=10) for part in partition(LABELS, 3, alpha=0.3)]
    assert np.ptp(counts) > 100


def test_test_images_are_split_like_training_images() -> None:
    train, test = partition(LABELS, 3, alpha=0.3), partition(SOME, 3, alpha=0.3)
    for larger, smaller in zip(train, test, strict=True):
        of_train = np.bincount(LABELS[larger], minlength=10)
        of_test = np.bincount(SOME[smaller], minlength=10)
        assert np.abs(of_train - 10 * of_test).max() <= 10


def test_a_part_of_nothing_is_refused() -> None:
    with pytest.raises(InstaHideError, match="one part would have"):
        partition(LABELS[:30], 10)

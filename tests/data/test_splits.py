"""Stratified splits: every class on both sides, the same for everybody."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instahide.data.splits import stratified_split, table_from_arrays
from instahide.data.table import ImageTable
from instahide.errors import InstaHideError


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    share=st.floats(0.01, 0.99),
)
def test_parts_are_disjoint_complete_and_have_every_class_of_two(labels, share):
    numbers = np.asarray(labels, np.int64)
    counts = np.bincount(numbers)
    if counts.max() < 2:
        with pytest.raises(InstaHideError, match="No class has two"):
            stratified_split(numbers, share)
        return
    train, test = stratified_split(numbers, share)
    assert sorted([*train, *test]) == list(range(len(labels)))
    for number, count in enumerate(counts):
        tested = int((numbers[test] == number).sum())
        if count >= 2:
            assert 1 <= tested < count
            assert abs(tested - share * count) <= 1
        else:
            assert tested == 0
    again = stratified_split(numbers, share)
    np.testing.assert_array_equal(train, again[0])
    np.testing.assert_array_equal(test, again[1])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InstaHideError, match="between 0 and 1"):
        stratified_split(np.asarray([0, 0, 1, 1]), share)


@pytest.mark.parametrize("wrong", [-1, 10**9, 2**40])
def test_labels_that_cannot_be_classes_are_refused_before_names_are_made(wrong):
    with pytest.raises(InstaHideError, match="Labels run from"):
        table_from_arrays(np.zeros((2, 4, 4), np.uint8), np.asarray([0, wrong]))


def test_labels_beyond_the_named_classes_are_refused():
    with pytest.raises(InstaHideError, match="2 classes"):
        table_from_arrays(np.zeros((2, 4, 4), np.uint8), np.asarray([0, 2]), ("cat", "dog"))


def test_normalized_values_have_mean_0_and_deviation_1():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), np.uint8)
    values = ImageTable.from_arrays(pixels).normalized().astype(np.float64)
    np.testing.assert_allclose(values.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(values.std(axis=(0, 2, 3)), 1, atol=1e-6)

"""Splits by whole groups: no patient is in two parts, and classes are shared as groups allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from instahide import ImageTable, InstaHideError
from instahide.data.duplicates.content_hash import merge_ids
from instahide.data.group_counts import strata_of
from instahide.data.splits import Split, grouped_split, require_trainable, split_table
from instahide.integrations.flower.client.partition import partition
from instahide.training.distributed.processes import Processes
from instahide.training.distributed.sharding import shard

SECRET = "Miller, Anna"


def table(labels: np.ndarray, groups: np.ndarray) -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 1, 4, 4), np.uint8)
    task = "single-label" if labels.ndim == 1 else "multi-label"
    made = ImageTable.from_arrays(pixels, labels, task=task)
    return made.grouped([f"{SECRET} {group}" for group in groups])


@st.composite
def images_of_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(2, 60))
    each = st.tuples(st.integers(0, 4), st.integers(0, draw(st.integers(1, 20))))
    labels, groups = zip(*draw(st.lists(each, min_size=count, max_size=count)), strict=True)
    return np.asarray(labels, np.int64), merge_ids(np.asarray(groups) % count)


@given(images=images_of_groups(), share=st.floats(0.05, 0.95))
def test_no_group_is_on_both_sides(images: tuple[np.ndarray, np.ndarray], share: float) -> None:
    labels, groups = images
    try:
        train, test = grouped_split(strata_of(labels), groups, share)
    except InstaHideError:
        # Every group has a class of its own.
        for group in np.unique(groups):
            own = set(labels[groups == group]) - set(labels[groups != group])
            assert own or len(np.unique(groups)) == 1
        return
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert len(test)
    assert not set(groups[train]) & set(groups[test])
    assert set(labels[train]) == set(labels)
    again = grouped_split(strata_of(labels), groups, share)
    assert (train == again[0]).all()
    assert (test == again[1]).all()


@given(seed=st.integers(0, 1000), share=st.sampled_from([0.1, 0.2, 0.3, 0.5]))
def test_classes_are_shared_about_alike(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    groups = merge_ids(generator.integers(0, 150, 600))
    labels = generator.integers(0, 3, 600)
    assume(len(np.unique(groups)) > 100)
    _, test = grouped_split(strata_of(labels), groups, share)
    for number in range(3):
        of_class = (labels == number).sum()
        assert abs((labels[test] == number).sum() / of_class - share) < 0.1


def test_rare_findings_are_on_both_sides() -> None:
    findings = np.zeros((200, 5), np.float32)
    findings[:, 0] = np.arange(200) % 2
    findings[[10, 150], 3] = 1
    findings[::50, 4] = np.nan
    parts = split_table(table(findings, np.arange(200) // 4), 0.2)
    for part in parts:
        assert (part.labels[:, 3] == 1).sum() == 1
        assert 0.4 < part.labels[:, 0].mean() < 0.6
    assert 0.15 < len(parts.test) / 200 < 0.25


def test_one_group_leaves_nothing_for_testing() -> None:
    with pytest.raises(InstaHideError, match="All images are of one group"):
        split_table(table(np.arange(10) % 2, np.zeros(10, np.int64)), 0.2)
    with pytest.raises(InstaHideError, match="between 0 and 1"):
        split_table(table(np.arange(10) % 2, np.arange(10)), 1.5)


def test_a_stated_split_with_a_group_on_both_sides_is_refused_by_number() -> None:
    whole = table(np.arange(40) % 2, np.arange(40) // 4)
    split = Split(whole.subset(slice(0, 30)), whole.subset(slice(26, 40)))
    with pytest.raises(InstaHideError, match=r"^2 groups are in both the training and") as refused:
        require_trainable(split)
    assert "Miller" not in str(refused.value)
    right = Split(whole.subset(slice(0, 28)), whole.subset(slice(28, 40)))
    assert require_trainable(right) is right


def test_images_of_no_group_are_in_no_common_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 4, 4), np.uint8)
    whole = ImageTable.from_arrays(pixels, np.arange(8) % 2).grouped([""] * 8)
    assert require_trainable(Split(whole.subset(slice(0, 4)), whole.subset(slice(4, 8))))
    assert len(split_table(whole, 0.25).test) == 2


@given(seed=st.integers(0, 1000), parts=st.integers(2, 4), alpha=st.sampled_from([None, 1.0]))
def test_parts_of_a_federation_have_whole_groups(
    seed: int, parts: int, alpha: float | None
) -> None:
    generator = np.random.default_rng(seed)
    groups = merge_ids(generator.integers(0, 60, 300))
    labels = generator.integers(0, 3, 300)
    try:
        found = partition(labels, parts, alpha=alpha, groups=groups)
    except InstaHideError:
        assert alpha is not None  # A part of a few images.
        return
    assert sorted(np.concatenate(found).tolist()) == list(range(300))
    owners = [set(groups[rows]) for rows in found]
    assert sum(map(len, owners)) == len(set.union(*owners))
    if alpha is None:
        counts = np.stack([np.bincount(labels[rows], minlength=3) for rows in found])
        assert np.ptp(counts, axis=0).max() <= 16


def process(rank: int) -> Processes:
    one = Processes()
    one.rank, one.world_size = rank, 3
    return one


def test_processes_have_whole_groups() -> None:
    whole = table(np.arange(50) % 2, np.arange(50) // 7)
    shards = [shard(whole, process(rank)) for rank in range(3)]
    hashes = [set(map(bytes, part.groups)) for part in shards if part.groups is not None]
    assert sum(map(len, shards)) == 50
    assert sum(map(len, hashes)) == len(set.union(*hashes)) == 8
    assert max(map(len, shards)) - min(map(len, shards)) <= 7

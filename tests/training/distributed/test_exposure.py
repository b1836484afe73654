"""Counts over several processes; here they are threads that wait for each other."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instahide.encryption.exposure import Exposure, ExposureView
from instahide.training.distributed.exposure import DistributedExposure, Total
from tests.waiting import LIMIT

IMAGES = 8


def alone(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return counts


def processes(
    count: int, work: Callable[[int, Total], NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """What ``work`` returns in each of ``count`` processes."""
    barrier, brought = Barrier(count, timeout=LIMIT), {}

    def run(rank: int) -> NDArray[np.int64]:
        def total(counts: NDArray[np.int64]) -> NDArray[np.int64]:
            brought[rank] = counts.copy()
            barrier.wait()
            summed = np.sum(list(brought.values()), axis=0)
            barrier.wait()
            return summed

        return work(rank, total)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def take(exposure: Exposure, mixes: list[list[int]]) -> int:
    rows = np.array(mixes, np.int64).reshape(len(mixes), -1)
    return exposure.record(rows, np.ones(rows.shape, np.float32))


def test_alone_it_counts_as_any_exposure_does() -> None:
    joint, plain = DistributedExposure(IMAGES, alone, limit=3), Exposure(IMAGES, limit=3)
    mixes = [[0, 1], [1, 2], [1, 3], [4, 5], [1, 6]]
    joint.begin_epoch(np.arange(IMAGES))
    assert take(joint, mixes) == take(plain, mixes) == 4
    assert joint.counts.tolist() == plain.counts.tolist()
    joint.begin_epoch(np.arange(IMAGES))
    spent = joint.exhausted()
    assert spent is not None
    assert np.flatnonzero(spent).tolist() == [1]
    assert joint.counts.tolist() == plain.counts.tolist()


@given(
    size=st.integers(2, 3),
    limit=st.integers(1, 6),
    seed=st.integers(0, 999),
    overlap=st.sampled_from([0, 1, IMAGES]),
)
@settings(max_examples=40, deadline=None)
def test_all_processes_together_keep_to_the_limit(
    size: int, limit: int, seed: int, overlap: int
) -> None:
    def work(rank: int, total: Total) -> NDArray[np.int64]:
        own, everybodys = np.random.default_rng([seed, rank]), np.random.default_rng(seed)
        exposure = DistributedExposure(IMAGES, total, limit=limit)
        gone = np.zeros(IMAGES, np.int64)
        for _ in range(3):
            # Shards that have the first of the shuffled images in common, new in every epoch.
            order = everybodys.permutation(IMAGES)
            rows = np.unique(np.concatenate([order[rank::size], order[:overlap]]))
            exposure.begin_epoch(rows)
            mixes = own.permuted(np.tile(np.arange(len(rows)), (10, 1)), axis=1)[:, :2]
            taken = ExposureView(exposure, rows).record(mixes, np.ones(mixes.shape, np.float32))
            np.add.at(gone, rows[mixes[:taken]].reshape(-1), 1)
        exposure.settle()
        return np.stack([gone, exposure.counts])

    results = processes(size, work)
    gone = sum(result[0] for result in results)
    for _, counts in results:
        assert counts.tolist() == gone.tolist()
    assert gone.max() <= limit


def test_what_one_process_has_alone_is_all_its_own() -> None:
    def work(rank: int, total: Total) -> NDArray[np.int64]:
        exposure = DistributedExposure(IMAGES, total, limit=4)
        # Image 0 is in both processes, image 1 + rank in one.
        exposure.begin_epoch(np.array([0, 1 + rank]))
        return np.array([take(exposure, [[0]] * 9), take(exposure, [[1 + rank]] * 9)])

    assert [result.tolist() for result in processes(2, work)] == [[2, 4], [2, 4]]


def test_what_was_made_elsewhere_counts_against_the_limit() -> None:
    exposure = DistributedExposure(2, alone, limit=5)
    exposure.add(np.array([4, 0]))
    exposure.begin_epoch(np.arange(2))
    assert take(exposure, [[0], [1], [0]]) == 2
    assert exposure.counts.tolist() == [5, 1]


def test_no_count_becomes_lower() -> None:
    exposure = DistributedExposure(3, alone)
    take(exposure, [[0], [0], [1]])
    exposure.raise_to(np.array([1, 4, 0]))
    assert exposure.counts.tolist() == [2, 4, 0]
    exposure.settle()
    assert exposure.counts.tolist() == [2, 4, 0]


def test_a_lower_limit_than_what_has_gone_out_allows_nothing() -> None:
    exposure = DistributedExposure(2, alone, limit=3)
    exposure.add(np.array([7, 0]))
    exposure.begin_epoch(np.arange(2))
    spent = exposure.exhausted()
    assert spent is not None
    assert spent.tolist() == [True, False]
    assert exposure.counts.tolist() == [7, 0]


def test_a_copy_for_another_process_goes_on_counting() -> None:
    exposure = DistributedExposure(3, alone, limit=2)
    take(exposure, [[0], [1]])
    copied = pickle.loads(pickle.dumps(exposure))  # noqa: S301
    copied.begin_epoch(np.arange(3))
    assert take(copied, [[2], [0], [0]]) == 2
    assert copied.counts.tolist() == [2, 1, 1]
    assert exposure.counts.tolist() == [1, 1, 0]


def test_processes_with_images_of_one_group_share_its_limit() -> None:
    def work(rank: int, total: Total) -> NDArray[np.int64]:
        exposure = DistributedExposure(4, total, limit=4, groups=["a", "a", "b", ""])
        # Images 0 and 1 are of one group and in two processes.
        exposure.begin_epoch(np.array([rank, 2 + rank]))
        taken = [take(exposure, [[rank]] * 9), take(exposure, [[2 + rank]] * 9)]
        exposure.settle()
        return np.array([*taken, *exposure.counts])

    assert [result.tolist() for result in processes(2, work)] == [[2, 4, 4, 4, 4, 4]] * 2


def test_groups_stay_in_copies_and_in_taken_up_counts() -> None:
    exposure = DistributedExposure(3, alone, groups=["a", "b", "a"])
    take(exposure, [[0], [1], [2]])
    assert exposure.counts.tolist() == [2, 1, 2]
    copied = pickle.loads(pickle.dumps(exposure))  # noqa: S301
    copied.identify(np.zeros((3, 2), np.uint64))
    take(copied, [[2]])
    assert copied.counts.tolist() == [3, 1, 3]
    resumed = DistributedExposure(3, alone, groups=["a", "b", "a"])
    resumed.raise_to(exposure.by_picture)
    assert resumed.counts.tolist() == [2, 1, 2]

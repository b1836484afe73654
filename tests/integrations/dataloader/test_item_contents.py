"""A digest of the images at the positions of a data set, in one process and in several."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

from instahide.errors import IntegrationError
from instahide.integrations.dataloader.duplicate_scan import ItemScan
from instahide.integrations.dataloader.item_contents import ItemContents, PositionExposure
from instahide.training.distributed.exposure import Total

ITEMS = 6
PIXELS = torch.arange(ITEMS * 4.0).reshape(ITEMS, 1, 2, 2)


def alone(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return counts


def scan_of(pixels: torch.Tensor, rows: Any) -> ItemScan:
    scan = ItemScan(DataLoader(TensorDataset(pixels, torch.arange(len(pixels)))), None, None)
    scan.see(np.asarray(rows, np.int64))
    return scan


def hashes(rows: Any = range(ITEMS)) -> NDArray[np.uint64]:
    return scan_of(PIXELS, list(rows)).hashes[:, 0]


def test_a_digest_matches_its_images_alone() -> None:
    contents = ItemContents.of(hashes([0, 2, 5]))
    assert contents.known.tolist() == [True, False, True, False, False, True]
    assert contents.match(hashes([0, 2, 5]))
    assert contents.match(hashes())
    assert not contents.match(hashes([0, 2]))
    assert not contents.match(hashes()[::-1])


def test_digests_of_two_runs_are_not_seen_to_be_of_the_same_images() -> None:
    one, other = ItemContents.of(hashes()), ItemContents.of(hashes())
    assert one.digest != other.digest
    assert ItemContents.of(hashes(), one.salt).digest == one.digest


def test_a_pickled_exposure_still_refuses_other_images() -> None:
    exposure = PositionExposure(ITEMS, alone, limit=9)
    exposure.require_same(scan_of(PIXELS, [0, 1]))
    exposure.add(np.arange(ITEMS))
    exposure = pickle.loads(pickle.dumps(exposure))  # noqa: S301
    assert (exposure.counts.tolist(), exposure.limit) == (list(range(ITEMS)), 9)
    with pytest.raises(IntegrationError, match="same images"):
        exposure.require_same(scan_of(PIXELS.flip(0), [3, 4]))
    exposure.require_same(scan_of(PIXELS, [3, 4]))
    assert exposure.contents[0].known.tolist() == [True, True, False, True, True, False]


class Processes:
    """Threads that sum as processes do."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._barrier = Barrier(count, timeout=20)
        self._given: list[Any] = [None] * count

    def total(self, rank: int) -> Total:
        def summed(counts: NDArray[np.int64]) -> NDArray[np.int64]:
            self._given[rank] = counts
            self._barrier.wait()
            found: NDArray[np.int64] = np.sum(self._given, axis=0)
            self._barrier.wait()
            return found

        return summed

    def run(self, work: Any) -> list[Any]:
        with ThreadPoolExecutor(self.count) as pool:
            return [one.result() for one in [pool.submit(work, r) for r in range(self.count)]]


def test_processes_know_the_images_of_each_other() -> None:
    """Each of them scans other items, and after a resume another part."""
    contents: list[ItemContents] = []

    def first(rank: int) -> ItemContents:
        exposure = PositionExposure(ITEMS, processes.total(rank))
        exposure.require_same(scan_of(PIXELS, [0, 1, 2] if rank else [3, 4]))
        return exposure.contents[0]

    def resumed(rank: int, pixels: torch.Tensor) -> bool:
        exposure = PositionExposure(ITEMS, processes.total(rank))
        exposure.expect(contents)
        try:
            exposure.require_same(scan_of(pixels, [rank]))
        except IntegrationError:
            return False
        return bool(exposure.contents[0].known[:5].all())

    processes = Processes(2)
    contents = processes.run(first)[:1]
    assert contents[0].known.tolist() == [True] * 5 + [False]
    assert processes.run(lambda rank: resumed(rank, PIXELS)) == [True, True]
    for changed in range(ITEMS):
        other = PIXELS.clone()
        other[changed] += 1
        same = changed == 5
        assert processes.run(lambda rank, other=other: resumed(rank, other)) == [same, same]


def test_nothing_is_said_of_items_that_processes_see_differently() -> None:
    """As with a transform that depends on the rank."""

    def check(rank: int) -> int:
        exposure = PositionExposure(ITEMS, processes.total(rank))
        for _ in range(2):
            exposure.require_same(scan_of(PIXELS + rank, range(ITEMS)))
        return len(exposure.contents)

    processes = Processes(2)
    assert processes.run(check) == [0, 0]


def test_a_shared_limit_holds_over_processes_whatever_they_are_given() -> None:
    """Each of them begins with its own items, and goes on with those of the other."""

    def used(rank: int, shared: bool) -> NDArray[np.int64]:
        exposure = PositionExposure(ITEMS, processes.total(rank), limit=9)
        exposure.shared = shared
        parts = np.array_split(np.arange(ITEMS), 2)
        for part in (parts[rank], parts[1 - rank]):
            exposure.begin_epoch(part)
        rows = np.repeat(np.arange(ITEMS), 20)[:, None]
        made = [exposure.record(row[None], np.ones((1, 1), np.float32)) for row in rows]
        found = np.zeros(ITEMS, np.int64)
        np.add.at(found, rows[:, 0], made)
        exposure.settle()
        return found

    processes = Processes(2)
    for shared, most in ((True, 8), (False, 18)):
        one, other = processes.run(lambda rank, shared=shared: used(rank, shared))
        assert (one + other).tolist() == [most] * ITEMS


def test_a_pickled_exposure_is_still_shared() -> None:
    exposure = PositionExposure(ITEMS, alone)
    exposure.shared = True
    assert pickle.loads(pickle.dumps(exposure)).shared  # noqa: S301


def test_joined_counts_are_added_and_expect_both_images() -> None:
    one, other = PositionExposure(ITEMS, alone), PositionExposure(ITEMS, alone)
    for exposure, pixels in ((one, PIXELS), (other, PIXELS.flip(0))):
        exposure.require_same(scan_of(pixels, range(ITEMS)))
        exposure.begin_epoch(np.arange(ITEMS))
        exposure.record(np.arange(ITEMS)[:, None], np.ones((ITEMS, 1), np.float32))
    one.join(other)
    assert one.counts.tolist() == [2] * ITEMS
    with pytest.raises(IntegrationError, match="same images"):
        one.require_same(scan_of(PIXELS, range(ITEMS)))

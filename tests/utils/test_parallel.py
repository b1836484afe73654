"""Work on threads: in order, bounded, and over when it is closed."""

from __future__ import annotations

import threading
import time

import pytest

from instahide.utils.parallel import AHEAD, parallel_map
from tests.waiting import wait_until


@pytest.mark.parametrize("workers", [1, 2, None])
def test_results_come_in_order_whatever_takes_longest(workers):
    def slow_first(number: int) -> int:
        time.sleep(0.02 * (number == 0))
        return number**2

    assert list(parallel_map(slow_first, range(50), workers)) == [n**2 for n in range(50)]


def test_few_results_wait_for_their_turn():
    started: list[int] = []
    results = parallel_map(started.append, range(10_000), 2)
    next(results)
    assert len(started) <= 2 * AHEAD + 1
    results.close()  # type: ignore[attr-defined]
    before = len(started)
    time.sleep(0.05)
    assert len(started) <= before + 2


def test_an_error_ends_the_work_and_its_threads():
    def fail(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    before = threading.active_count()
    with pytest.raises(ValueError, match="three"):
        list(parallel_map(fail, range(1000), 2))
    wait_until(lambda: threading.active_count() <= before)

"""What the tests themselves rest on: no test is judged by how busy the machine is."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.waiting import ticks, wait_until


def test_hypothesis_has_no_deadline() -> None:
    current = settings()
    assert current.deadline is None
    assert HealthCheck.too_slow in current.suppress_health_check


def test_a_clock_of_ticks_is_a_second_later_whenever_it_is_asked() -> None:
    clock = ticks()
    assert [clock() for _ in range(3)] == [0, 1, 2]


def test_waiting_ends_when_it_happened_or_cannot_happen_any_more() -> None:
    clock = ticks()
    wait_until(lambda: clock() > 3)
    # It happened in the end, although whoever did it is gone.
    seen = iter([False, True])
    wait_until(lambda: next(seen), unless=lambda: "exit code 0")
    with pytest.raises(AssertionError, match="exit code 1"):
        wait_until(lambda: False, unless=lambda: "exit code 1")

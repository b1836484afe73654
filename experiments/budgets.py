"""Budgets that do not depend on the load of the machine."""

from __future__ import annotations

import time

from instahide.attacks.budget import Budget


class ProcessorTime(Budget):
    """A budget in seconds of CPU time of this process, all its threads together.

    The same budget allows the same work on a busy machine. For an attack with one thread on a core
    of its own, CPU time equals wall time.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, clock=time.process_time)

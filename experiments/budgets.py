"""Time for attacks that a busy machine does not shorten."""

from __future__ import annotations

import time

from instahide.attacks.base import Budget


class ProcessorTime(Budget):
    """Seconds of processor time of this process, all its threads together.

    So many are the same work however busy the machine is; for an attack with one thread, on a core
    of its own, they are seconds of wall time.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, clock=time.process_time)

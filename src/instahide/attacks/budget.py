"""The time of an attack, which also keeps whether it was too short."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """The time that an attack may take, from the creation of the budget.

    An attack asks `over` where work is left. So the budget knows whether it was too short, and the
    attack is then reported as one that ran out of time, also if it ended before its last second.

    Args:
        seconds: wall time in seconds; unlimited by default.
        clock: returns the time in seconds. A clock that advances by one per call gives a budget of
            steps, so that results do not depend on the load of the machine:

            >>> from itertools import count
            >>> budget = Budget(2, clock=count().__next__)
            >>> budget.left, budget.left
            (1, 0.0)
            >>> budget.cut_short
            False
            >>> budget.part(0).over, budget.cut_short
            (True, True)
        whole: the budget that this one is a part of, if any.
    """

    def __init__(
        self,
        seconds: float = float("inf"),
        *,
        clock: Callable[[], float] = time.monotonic,
        whole: Budget | None = None,
    ) -> None:
        self.seconds = seconds
        self._clock, self._whole, self._cut_short = clock, whole, False
        self._began = clock()

    @property
    def left(self) -> float:
        """Remaining seconds; 0 at the end."""
        return max(0.0, self.seconds - (self._clock() - self._began))

    @property
    def over(self) -> bool:
        """Whether the time is over. To be asked only where work is left, which is then cut short.

        Ask `left` where the answer does not reduce what is done.
        """
        if self.left > 0:
            return False
        self.cut()
        return True

    @property
    def cut_short(self) -> bool:
        """Whether less was done than was wanted, because this budget or a part of it was short."""
        return self._cut_short

    def cut(self) -> None:
        """Record that less is done than was wanted, for want of time."""
        self._cut_short = True
        if self._whole is not None:
            self._whole.cut()

    def part(self, seconds: float) -> Budget:
        """A budget of ``seconds`` from now, with the same clock."""
        return Budget(seconds, clock=self._clock, whole=self)

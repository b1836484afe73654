"""How long tests wait for other processes and threads, and how.

The limit is there for what never ends. What ends takes a small part of it, also on a machine that
is busy with something else, so that no test fails for want of time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

#: Seconds after which something hangs.
LIMIT = 900.0
#: Seconds between two looks.
_PAUSE = 0.005


def wait_until(
    happened: Callable[[], object], *, unless: Callable[[], object] = lambda: None
) -> None:
    """Return once ``happened`` gives something true.

    Args:
        happened: is asked again and again.
        unless: gives what is wrong where it cannot happen any more, such as the exit code of a
            process that has ended; None while it can.
    """
    given_up = time.monotonic() + LIMIT
    while not happened():
        wrong = unless()
        if wrong is not None:
            # It may have happened, and all be over, since it was asked.
            assert happened(), f"it cannot happen any more: {wrong}"
            return
        assert time.monotonic() < given_up, "it does not happen"
        time.sleep(_PAUSE)


def ticks() -> Callable[[], float]:
    """A clock that is a second later whenever it is asked: a budget by it is one of steps."""
    return count().__next__

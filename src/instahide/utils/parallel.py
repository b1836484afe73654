"""Work spread over threads, taken back in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from instahide.utils.progress import progress_hidden

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Results that may wait for their turn, per thread: enough to keep threads busy, few to hold.
AHEAD = 8


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """``map`` on threads (as many as processors by default) with a bounded number of results held.

    The first error of ``function`` ends the iteration. One worker means no threads at all.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Not waiting: the collector may end a forgotten iteration on one of the pool's own threads.
        pool.shutdown(wait=False, cancel_futures=True)


def with_progress(
    items: Iterable[Item], description: str, total: int, shown: bool
) -> Generator[Item, None, None]:
    """``items`` with a progress bar on standard error, gone when they end or are closed."""
    from rich.console import Console
    from rich.progress import track

    yield from track(
        items,
        description,
        total=total,
        console=Console(stderr=True),
        transient=True,
        disable=not shown or progress_hidden(),
    )

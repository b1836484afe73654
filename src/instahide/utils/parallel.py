"""An ordered parallel map on threads, and progress bars."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from instahide.utils.progress import progress_hidden

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Maximum number of pending results per thread: enough to keep threads busy, in bounded memory.
AHEAD = 8


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """An ordered ``map`` on threads, with a bounded number of pending results.

    The first error of ``function`` ends the iteration. With one worker, no threads are used. The
    default number of workers is the number of CPUs.
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
        # Without waiting: the garbage collector may close an abandoned iterator on one of the
        # pool's own threads, which would wait for itself.
        shut_down(pool, waiting, wait=False)


def shut_down(
    pool: ThreadPoolExecutor, waiting: Iterable[Future[Any]], *, wait: bool = True
) -> None:
    """Cancel the ``waiting`` tasks and end ``pool``.

    Its own ``cancel_futures`` fails in a generator that is closed while the interpreter shuts down.
    """
    for task in waiting:
        task.cancel()
    pool.shutdown(wait=wait)


@contextmanager
def with_status(description: str, shown: bool) -> Iterator[None]:
    """Show ``description`` on standard error while the block runs, if that is a terminal."""
    from rich.console import Console

    if not shown or progress_hidden():
        yield
        return
    with Console(stderr=True).status(description):
        yield


def with_progress(
    items: Iterable[Item], description: str, total: int, shown: bool
) -> Generator[Item, None, None]:
    """Yield ``items`` with a progress bar on standard error, removed at the end."""
    from rich.console import Console
    from rich.progress import track

    if not shown or progress_hidden():
        yield from items
        return
    yield from track(items, description, total=total, console=Console(stderr=True), transient=True)

"""How every benchmark is timed and reported."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

from rich.console import Console
from rich.table import Table


def quick(description: str) -> bool:
    """Whether the command line asks for a tiny size, which shows that all runs but no speed."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tiny size; its times mean nothing")
    return bool(parser.parse_args().quick)


def medians(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    settle: bool = False,
) -> dict[str, float]:
    """Median seconds of each of ``works``.

    They take turns, so that what disturbs the machine for a while disturbs all of them, and each
    runs once before its time counts. To ``settle``, each runs once more before every turn that
    counts: it then finds caches and heap as its own last run left them, not somebody else's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            if settle:
                work()
            started = clock()
            work()
            seconds[name].append(clock() - started)
    return {name: median(times) for name, times in seconds.items()}


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Give what is begun in the block one core: processes inherit it."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def report_steps(title: str, steps: int, plain: tuple[str, float], ours: tuple[str, float]) -> None:
    """`report` what a step takes, and how much longer ours takes.

    Args:
        title: of the table.
        steps: in an epoch.
        plain: what a step is called, and the seconds of an epoch of such steps.
        ours: likewise.
    """
    overhead = ours[1] / plain[1]
    rows = [(name, f"{1e3 * seconds / steps:,.1f} ms") for name, seconds in (plain, ours)]
    figures = {
        "overhead": overhead,
        "plain_step_seconds": plain[1] / steps,
        "our_step_seconds": ours[1] / steps,
    }
    report(title, [*rows, ("overhead", f"{overhead - 1:+.2%}")], figures)


def report(title: str, rows: Iterable[tuple[str, str]], figures: Mapping[str, float]) -> None:
    """Print a table for people and, as the last line, ``figures`` as one JSON object."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    processors, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{processors} processors; load in the last minute {load:.1f}, this benchmark included")
    print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}))

"""How commands show that work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TimeRemainingColumn

from instahide.cli.console import notes, text_column


@contextmanager
def progress_bar(unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with speed and time left, on standard error."""
    columns = (
        text_column("{task.completed:,}/{task.total:,} " + unit),
        BarColumn(),
        text_column("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=notes) as bars:
        task = bars.add_task("", total=total, speed="")

        def advance(count: int) -> None:
            bars.advance(task, count)
            speed = bars.tasks[0].speed
            bars.update(task, speed=f"{speed:,.0f} images/s" if speed else "")

        yield advance

"""What a person sees while a network trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from instahide.training.history import EpochRecord


class Progress:
    """Hears how training goes; this one stays silent."""

    epochs = 0
    done = 0

    def __enter__(self) -> Self:
        """Start to show."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the screen as a plain text would."""

    def begin(self, epochs: int, batches: int, done: int) -> None:
        """A run of ``epochs`` of ``batches`` each starts after the first ``done`` epochs."""
        self.epochs, self.done = epochs, done

    def batch(self, number: int, loss: float, images_per_second: float) -> None:
        """Batch ``number`` of the epoch is learnt; loss and speed are the epoch's so far."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is over and, where there is a run folder, safe on disk."""
        self.done = record.epoch


class Lines(Progress):
    """One plain line an epoch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def epoch(self, record: EpochRecord) -> None:
        """Print the epoch and the time that the rest takes at its speed."""
        super().epoch(record)
        left = timedelta(seconds=round(record.seconds * (self.epochs - record.epoch)))
        self._console.print(
            f"epoch {record.epoch}/{self.epochs}  {_facts(record)}  {left} left",
            highlight=False,
            soft_wrap=True,
        )


class Bars(Progress):
    """A bar for the run and one for the epoch."""

    def __init__(self, console: Console) -> None:
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console,
        )
        self._run = self._bars.add_task("run", total=None, facts="")
        self._epoch = self._bars.add_task("epoch", total=None, facts="")
        self._batches = 0

    def __enter__(self) -> Self:
        """Draw the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they stand."""
        self._bars.stop()

    def begin(self, epochs: int, batches: int, done: int) -> None:
        """Set both bars to where the run starts."""
        super().begin(epochs, batches, done)
        self._batches = batches
        self._bars.update(self._run, total=epochs * batches, completed=done * batches)
        self._next_epoch()

    def batch(self, number: int, loss: float, images_per_second: float) -> None:
        """Move both bars."""
        facts = f"loss {loss:.3f}  {images_per_second:,.0f} images/s"
        self._bars.update(self._epoch, completed=number, facts=facts)
        self._bars.update(self._run, completed=self.done * self._batches + number)

    def epoch(self, record: EpochRecord) -> None:
        """Show the epoch's figures beside the run and empty the epoch's bar."""
        super().epoch(record)
        self._bars.update(self._run, completed=self.done * self._batches, facts=_facts(record))
        self._bars.update(self._epoch, completed=self._batches)
        self._next_epoch()

    def _next_epoch(self) -> None:
        if self.done < self.epochs:
            name = f"epoch {self.done + 1}/{self.epochs}"
            self._bars.reset(self._epoch, total=self._batches, description=name, facts="")


@contextmanager
def progress_reporter(console: Console | None = None) -> Iterator[Progress]:
    """Bars on a terminal, lines elsewhere (standard error); one line of its own after Ctrl-C."""
    console = console or Console(stderr=True)
    progress = Bars(console) if console.is_terminal else Lines(console)
    try:
        with progress:
            yield progress
    except KeyboardInterrupt:
        console.print(f"Stopped after epoch {progress.done} of {progress.epochs}.", highlight=False)
        raise


def _facts(record: EpochRecord) -> str:
    metrics = [f"{name} {share:.1%}" for name, share in record.metrics.items()]
    speed = f"{record.images_per_second:,.0f} images/s"
    return "  ".join([f"loss {record.loss:.3f}", *metrics, speed])

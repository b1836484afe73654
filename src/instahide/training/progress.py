"""Progress of a training run on the terminal or in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from instahide.training.history import EpochRecord
from instahide.training.metrics import as_text


class Progress:
    """Receives the progress of a training run; this base class shows nothing."""

    epochs = 0
    done = 0

    def __enter__(self) -> Self:
        """Start the display."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the display."""

    def begin(self, epochs: int, batches: int, done: int) -> None:
        """Start a run of ``epochs`` epochs of ``batches`` batches, of which ``done`` are over."""
        self.epochs, self.done = epochs, done

    def batch(self, number: int, loss: float, images_per_second: float) -> None:
        """Report the end of batch ``number``, with the loss and speed of the epoch so far."""

    def epoch(self, record: EpochRecord) -> None:
        """Report the end of an epoch; its checkpoint, if any, is on disk."""
        self.done = record.epoch


class Lines(Progress):
    """One line of text for each epoch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def epoch(self, record: EpochRecord) -> None:
        """Print the metrics of the epoch and the estimated time left."""
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
        """Stop updating the bars."""
        self._bars.stop()

    def begin(self, epochs: int, batches: int, done: int) -> None:
        """Set both bars to the start of the run."""
        super().begin(epochs, batches, done)
        self._batches = batches
        self._bars.update(self._run, total=epochs * batches, completed=done * batches)
        self._next_epoch()

    def batch(self, number: int, loss: float, images_per_second: float) -> None:
        """Advance both bars."""
        facts = f"loss {loss:.3f}  {images_per_second:,.0f} images/s"
        self._bars.update(self._epoch, completed=number, facts=facts)
        self._bars.update(self._run, completed=self.done * self._batches + number)

    def epoch(self, record: EpochRecord) -> None:
        """Show the metrics of the epoch and reset its bar."""
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
    """Bars on a terminal, else lines, on standard error; a final line after Ctrl-C."""
    console = console or Console(stderr=True)
    progress = Bars(console) if console.is_terminal else Lines(console)
    try:
        with progress:
            yield progress
    except KeyboardInterrupt:
        console.print(f"Stopped after epoch {progress.done} of {progress.epochs}.", highlight=False)
        raise


def _facts(record: EpochRecord) -> str:
    metrics = [f"{name} {as_text(name, value)}" for name, value in record.metrics.items()]
    speed = f"{record.images_per_second:,.0f} images/s"
    return "  ".join([f"loss {record.loss:.3f}", *metrics, speed])

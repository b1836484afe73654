"""Output of commands: results go to standard output, notes and errors to standard error.

`out.results` prints results as text, or with `--json` as one JSON object. `notes` prints what
`--quiet` suppresses; `err` prints errors.

Paths, class names and names of participants may come from an attacker. `SafeConsole` prints text
literally: it does not interpret square brackets and ``:colons:``, and it escapes characters that
change what a terminal shows. Styles are passed as arguments. `text_column` does the same for
progress bars, `audit.report` and `app.html` for HTML.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec

import typer
from click import ClickException, Command, Context
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from typer.core import TyperGroup

from instahide.errors import InstaHideError, printable, problem_and_remedy
from instahide.utils.progress import hidden_progress

P = ParamSpec("P")

#: Exit codes: unusable input, and stopped by Ctrl-C.
UNUSABLE, INTERRUPTED = 2, 130

#: Warning printed after encodings were made.
WARNING = (
    "InstaHide is no guarantee: the authors' challenge fell to published attacks with about 100 "
    "encodings of each image (arXiv:2011.05315)."
)

#: An argument as messages of the library name it: `skip_bad=True`, `out=`, `size=32`.
_ARGUMENT = re.compile(r"`([a-z_]+)=([^`]*)`")
#: Those of them that are options of commands, as ``--skip-bad``.
_OPTIONS = {
    "batch_size", "budget", "classes", "copies", "device", "engine", "format", "grey",
    "group_column", "image_column", "images", "label_columns", "labels", "max_gigabytes",
    "min_keypoints", "min_spread", "model", "out", "patch", "per_image", "port", "precision",
    "price", "public", "queries", "query_coefficient", "rate", "reports", "rescale", "resume",
    "scheme", "shape", "sign_invariant", "size", "skip_bad", "split_column", "task", "test",
    "truth", "values", "window",
}  # fmt: skip


class SafeConsole(Console):
    """A console that prints every text literally, also in tables."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`, but the terminal wraps long lines, so that they can be copied."""
        if all(isinstance(thing, str) for thing in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As `Console.render_str`, of `printable` text, without markup or emoji codes."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})


class ResultsConsole(SafeConsole):
    """Standard output, for the results of a command."""

    as_json = False

    def results(self, values: Mapping[str, object], *shown: object) -> None:
        """Print ``shown``, or under `--json` the same results as ``values``."""
        for part in [json.dumps(values, default=str)] if self.as_json else shown:
            self.print(part)


out = ResultsConsole()
err = SafeConsole(stderr=True)
notes = SafeConsole(stderr=True)


@contextmanager
def output_modes(*, quiet: bool, as_json: bool) -> Iterator[None]:
    """Suppress notes and progress inside the block, or print results as JSON."""
    before = notes.quiet, out.as_json
    notes.quiet, out.as_json = quiet, as_json
    try:
        with hidden_progress(quiet):
            yield
    finally:
        notes.quiet, out.as_json = before


class SafeGroup(TyperGroup):
    """A command with subcommands, whose errors show what was typed as `SafeConsole` would."""

    def make_context(self, *given: Any, **extra: Any) -> Context:
        """As `TyperGroup.make_context`."""
        with _printable_errors():
            return super().make_context(*given, **extra)

    def invoke(self, ctx: Context) -> object:
        """As `TyperGroup.invoke`."""
        with _printable_errors():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        """As `TyperGroup.resolve_command`; Click suggests a command itself, so typer must not."""
        self.suggest_commands = False
        return super().resolve_command(ctx, args)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except ClickException as error:
        error.message = printable(error.message)  # type: ignore[misc]
        raise


def text_column(template: str) -> TextColumn:
    """A column of a progress bar, as `SafeConsole` would print it."""
    return TextColumn(template, markup=False)


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


def explained(command: Callable[P, None]) -> Callable[P, None]:
    """Convert errors that a user can correct to a message and exit code 2, and Ctrl-C to 130."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _warnings_as_notes():
                command(*args, **kwargs)
        except (InstaHideError, OSError, MemoryError) as error:
            _refuse(*problem_and_remedy(error))
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run


def _refuse(problem: str, remedy: str) -> None:
    for title, style, text in (("Error:", "bold red", problem), ("Remedy:", "bold", remedy)):
        err.print(title, style=style, end=" ")
        err.print(_ARGUMENT.sub(_option, text))
    raise typer.Exit(UNUSABLE) from None


def _option(argument: re.Match[str]) -> str:
    """A library argument in a message, replaced by the command's option if there is one."""
    name, value = argument[1], argument[2].strip("'")
    if name not in _OPTIONS:
        return argument[0]
    option = f"--{name.replace('_', '-')}"
    return f"`{option}`" if value in ("", "True") else f"`{option} {value}`"


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print the project's own warnings as a sentence, without file and line."""

    def show(message: Warning | str, *_: object) -> None:
        notes.print(f"Note: {message}")

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module="instahide")
        warnings.showwarning = show  # type: ignore[assignment]
        yield

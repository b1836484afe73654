"""How commands speak: results to standard output, everything else to standard error."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from instahide.errors import InstaHideError, said

#: Exit codes: unusable input, and stopped by Ctrl-C.
UNUSABLE, INTERRUPTED = 2, 130

#: Said wherever encodings were made, with the number that is known.
WARNING = (
    "InstaHide is no guarantee: the authors' challenge fell to published attacks with about 100 "
    "encodings of each image (arXiv:2011.05315)."
)

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def explained(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can put right into a message and exit code 2, and Ctrl-C into 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with _warnings_as_notes():
                command(*args, **kwargs)
        except (InstaHideError, OSError, MemoryError) as error:
            _refuse(*said(error))
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run


def _refuse(problem: str, remedy: str) -> None:
    for title, text in (("[bold red]Error:[/]", problem), ("[bold]Remedy:[/]", remedy)):
        err.print(title, end=" ")
        err.print(text, markup=False, soft_wrap=True)
    raise typer.Exit(UNUSABLE) from None


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print the project's own warnings as a sentence, without file and line."""

    def show(message: Warning | str, *_: object) -> None:
        err.print(f"Note: {message}", markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module="instahide")
        warnings.showwarning = show  # type: ignore[assignment]
        yield

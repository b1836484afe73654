"""How commands speak: results to standard output, everything else to standard error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

from instahide.errors import InstaHideError

#: Exit codes: unusable input, and stopped by Ctrl-C.
UNUSABLE, INTERRUPTED = 2, 130

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def explained(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can put right into a message and exit code 2, and Ctrl-C into 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InstaHideError as error:
            err.print("[bold red]Error:[/]", end=" ")
            err.print(error.problem, markup=False, soft_wrap=True)
            err.print("[bold]Remedy:[/]", end=" ")
            err.print(error.remedy, markup=False, soft_wrap=True)
            raise typer.Exit(UNUSABLE) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run

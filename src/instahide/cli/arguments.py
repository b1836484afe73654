"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Argument(help="Images: digits, mnist-5k, fashion-mnist, a folder, a file or a URL."),
]
Pool = Annotated[str, typer.Option("--public", help="A public pool's folder, or `photos`.")]
Size = Annotated[
    int | None, typer.Option(help="Resize the short side to so many pixels and crop the centre.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", help="The ledger; $INSTAHIDE_LEDGER or the user's own by default."),
]

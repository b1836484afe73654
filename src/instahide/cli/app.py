"""`instahide app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instahide.cli.console import out
from instahide.cli.options import command


@command
def app(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 7860,
    reports: Annotated[Path, typer.Option(help="Folder of audit reports to show.")] = Path("audit"),
) -> None:
    """Open a web page on this machine that shows encryption and attacks.

    Only this machine can reach the page. Images that you add stay in memory.
    """
    from instahide.app.server import serve

    def announce(address: str) -> None:
        out.results({"address": address}, f"The page is at {address}; Ctrl-C ends it.")

    serve(port, reports, announce)

"""`instahide export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instahide.cli.console import out, progress_bar
from instahide.cli.options import EncodedSource, Format, command


@command
def export(
    folder: EncodedSource,
    form: Format,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
) -> None:
    """Export encodings to another format.

    Example: instahide export encoded --format webdataset --out tars
    """
    from instahide.encodings.convert.exporter import export_encodings
    from instahide.encodings.folder import EncodedFolder

    opened = EncodedFolder.open(folder)
    with progress_bar("encodings", len(opened)) as advance:
        export_encodings(opened, out_folder, form, advance)
    out.results(
        {"folder": out_folder, "encodings": len(opened), "format": form},
        f"{len(opened):,} encodings in {out_folder}",
    )

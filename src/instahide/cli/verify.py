"""`instahide verify`."""

from __future__ import annotations

from instahide.cli.console import out, progress_bar
from instahide.cli.info import STATES
from instahide.cli.options import EncodedSource, command
from instahide.errors import DamagedFileError


@command
def verify(folder: EncodedSource) -> None:
    """Check every byte and every value of a folder of encodings."""
    from instahide.encodings.folder import EncodedFolder

    opened = EncodedFolder.open(folder, partial=True)
    with progress_bar("encodings", len(opened)) as advance:
        problems = opened.verify(advance)
    if problems:
        raise DamagedFileError(
            " ".join([f"{folder} is not as it was written.", *problems[:10]]),
            "Ask the publisher for a new copy.",
        )
    state = STATES[opened.manifest.ended]
    out.results(
        {"folder": folder, "encodings": len(opened), "state": state},
        f"{folder} is as it was written: {len(opened):,} encodings, {state}.",
    )

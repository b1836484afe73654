"""`instahide export` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instahide.cli.console import out
from instahide.cli.options import numbers
from instahide.cli.progress import progress_bar
from instahide.encodings.convert.exporter import export_encodings
from instahide.encodings.convert.formats import Name
from instahide.encodings.convert.importer import ExternalEncodings, Provenance
from instahide.encodings.folder import EncodedFolder
from instahide.errors import InstaHideError
from instahide.training.settings import TrainSettings

#: What must be told of encodings without a manifest, beside k.
NEEDED = ("scheme", "private_images", "copies", "mean", "std")


def run_export(location: str, form: Name, target: Path) -> None:
    """Write a folder of encodings in another format."""
    folder = EncodedFolder.open(location)
    with progress_bar("encodings", len(folder)) as advance:
        export_encodings(folder, target, form, advance)
    out.print(f"{len(folder):,} encodings in {target}")


def run_import(
    source: Path, form: Name, target: Path, mixing: dict[str, Any], told: dict[str, Any]
) -> None:
    """Make a folder of encodings from files in another format.

    ``mixing`` are settings of the scheme, ``told`` the other facts of a `Provenance`; what the
    user did not give is None.
    """
    foreign = ExternalEncodings.open(source, form, _origin(mixing, told))
    with progress_bar("encodings", foreign.count) as advance:
        folder = foreign.convert(target, advance)
    out.print(f"{len(folder):,} encodings in {target}")


def _origin(mixing: dict[str, Any], told: dict[str, Any]) -> Provenance | None:
    given = {name: value for name, value in (mixing | told).items() if value is not None}
    if not given:
        return None
    needed = NEEDED if mixing["scheme"] == "plain" else (*NEEDED, "k")
    missing = [f"--{name.replace('_', '-')}" for name in needed if name not in given]
    if missing:
        raise InstaHideError(
            f"How these encodings were made is not clear without {', '.join(missing)}.",
            "Ask whoever made them.",
        )
    scheme = {name: given[name] for name in mixing if name in given}
    return Provenance(
        TrainSettings.from_values(scheme, "The options").encryption(),
        told["private_images"],
        told["copies"],
        numbers(told["mean"]),
        numbers(told["std"]),
        told["participant"] or "",
    )

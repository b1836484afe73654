"""`instahide import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from instahide.cli.console import out, progress_bar
from instahide.cli.options import MIXING_PANEL, Format, MixingOptions, command, numbers
from instahide.data.labels import Task
from instahide.encryption.scheme import Preset
from instahide.errors import InstaHideError

if TYPE_CHECKING:
    from instahide.encodings.convert.importer import Provenance


class ImportOptions(MixingOptions):
    """What `instahide import` takes."""

    source: Annotated[Path, typer.Argument(help="Folder of files in the format.")]
    form: Format
    out: Annotated[Path, typer.Option(help="Folder for the encodings.")]
    scheme: Preset | None = Field(None, description="how images were mixed")
    k: int | None = Field(None, description="images in a mix")
    private_images: int | None = Field(None, description="how many images were encrypted")
    copies: int | None = Field(None, description="encodings of each image")
    mean: str | None = Field(None, description="mean of pixel / 255 before encryption")
    std: str | None = Field(None, description="standard deviation before encryption")
    participant: str = Field("", description="whose images these are")
    task: Task = Field(
        "single-label", description="what labels are: classes, several findings, or values"
    )


FACTS = ("private_images", "copies", "mean", "std", "participant", "task")
PANELS = {"How the encodings were made, if there is no manifest": (*MIXING_PANEL, *FACTS)}


@command
def import_(options: Annotated[ImportOptions, PANELS]) -> None:
    """Import encodings from another format.

    Example: instahide import tars --format webdataset --out encoded
    """
    from instahide.encodings.convert.importer import ExternalEncodings

    found = ExternalEncodings.open(options.source, options.form, _provenance(options))
    with progress_bar("encodings", found.count) as advance:
        folder = found.convert(options.out, advance)
    out.results(
        {"folder": options.out, "encodings": len(folder)},
        f"{len(folder):,} encodings in {options.out}",
    )


def _provenance(options: ImportOptions) -> Provenance | None:
    from instahide.encodings.convert.importer import Provenance

    if options.model_fields_set.isdisjoint([*MIXING_PANEL, *FACTS]):
        return None
    scheme, mean, std = options.scheme, options.mean, options.std
    images, copies = options.private_images, options.copies
    k = 1 if options.k is None and scheme == "plain" else options.k
    needed = {
        "scheme": scheme, "private-images": images, "copies": copies, "mean": mean, "std": std,
        "k": k,
    }  # fmt: skip
    if not (scheme and mean and std) or images is None or copies is None or k is None:
        missing = [f"--{name}" for name, value in needed.items() if value in (None, "")]
        raise InstaHideError(
            f"How these encodings were made is not clear without {', '.join(missing)}.",
            "Ask whoever made them.",
        )
    mixing = options.changed(scheme, k, options.task)
    return Provenance(
        mixing,
        images,
        copies,
        numbers(mean),
        numbers(std),
        options.participant,
        task=options.task,
    )

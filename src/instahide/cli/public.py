"""`instahide public`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, Field

from instahide.cli.console import out
from instahide.cli.options import MOST, MOST_PIXELS, SkipBad, command
from instahide.data import make_pool


class PublicOptions(BaseModel):
    """What `instahide public` takes."""

    source: Annotated[str, typer.Argument(help="Folder of photographs, or `photos`.")]
    out: Annotated[Path, typer.Option(help="Folder of the pool.")]
    patch: int = Field(32, description="height and width of a patch", ge=1, le=MOST_PIXELS)
    per_image: int = Field(
        100, description="largest number of patches of a photograph", ge=1, le=MOST
    )
    min_keypoints: int = Field(40, description="least number of SIFT key points of a patch")
    grey: Annotated[bool, typer.Option("--grey", help="One channel instead of three.")] = False
    skip_bad: SkipBad = False


@command
def public(options: PublicOptions) -> None:
    """Cut a public pool of patches from photographs.

    Flat patches are left out. Example: instahide public photos --out pool --patch 64
    """
    pool = make_pool(
        options.source,
        options.out,
        patch=options.patch,
        per_image=options.per_image,
        min_keypoints=options.min_keypoints,
        grey=options.grey,
        skip_bad=options.skip_bad,
    )
    side = options.patch
    out.results(
        {"folder": options.out, "patches": len(pool), "side": side},
        f"{len(pool)} patches of {side} x {side} pixels in {options.out}",
    )

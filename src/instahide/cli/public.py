"""`instahide public`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, Field
from rich.filesize import decimal

from instahide.cli.console import notes, out
from instahide.cli.options import MOST, SkipBad, command
from instahide.data import make_pool, make_scan_pool, plan_scan_pool
from instahide.data.pixels import MOST_SIDE, ValueRange
from instahide.data.public.scan_plan import MAX_GIGABYTES, MIN_SPREAD, ScanPoolPlan
from instahide.data.readers.window import read_window
from instahide.errors import InstaHideError
from instahide.utils.number_text import plain_int

#: Options of one kind of pools alone.
PHOTO_OPTIONS = ("patch", "min_keypoints", "grey")
SCAN_OPTIONS = ("min_spread", "window", "rescale", "max_gigabytes", "dry_run")


class PublicOptions(BaseModel):
    """What `instahide public` takes."""

    source: Annotated[
        str, typer.Argument(help="Folder of photographs or of other images, or `photos`.")
    ]
    out: Annotated[Path, typer.Option(help="Folder of the pool.")]
    per_image: int = Field(100, description="largest number of patches of an image", ge=1, le=MOST)
    skip_bad: SkipBad = False
    patch: int = Field(32, description="height and width of a patch", ge=1, le=MOST_SIDE)
    min_keypoints: int = Field(40, description="least number of SIFT key points of a patch")
    grey: Annotated[bool, typer.Option("--grey", help="One channel instead of three.")] = False
    size: str | None = Field(
        None, description="sides of a patch, H,W or D,H,W, whose pixels keep their type and values"
    )
    min_spread: float = Field(
        MIN_SPREAD, description="least standard deviation of a patch, relative to that of all", ge=0
    )
    window: str = Field("full", description="range of pixel values to keep: full or LO,HI")
    rescale: bool = Field(False, description="scale the window to 0 to 1, as for rescaled images")
    max_gigabytes: float = Field(MAX_GIGABYTES, description="largest size of the pool", gt=0)
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the size, and stop.")] = False


PANELS = {
    "Photographs, 8 bits": PHOTO_OPTIONS,
    "Volumes, 16 bits, floats, channels": ("size", *SCAN_OPTIONS),
}


@command
def public(options: Annotated[PublicOptions, PANELS]) -> None:
    """Cut a public pool of patches from photographs, volumes or images of 16 bits.

    Flat patches are left out. The pool is not secret: cut it from images that anybody may see.

    Examples: instahide public photos --out pool --patch 64;
    instahide public CT_FOLDER --out pool --size 64,64,64 --window -1000,400
    """
    _require_one_kind(options)
    if options.size is not None:
        _scans(options, options.size)
        return
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


def _scans(options: PublicOptions, shape: str) -> None:
    plan = plan_scan_pool(
        options.source,
        _sides(shape),
        per_image=options.per_image,
        min_spread=options.min_spread,
        window=_range(options.window),
        rescale=options.rescale,
        max_gigabytes=options.max_gigabytes,
        skip_bad=options.skip_bad,
    )
    kind = f"{' x '.join(map(str, plan.image_shape))} {plan.dtype}"
    cost = (
        f"At most about {plan.patches:,} patches of {kind} from {len(plan.files):,} images, "
        f"{decimal(plan.bytes)} (twice that while they are cut)"
    )
    facts: dict[str, object] = {"shape": plan.image_shape, "dtype": plan.dtype}
    if options.dry_run:
        out.results({"patches": plan.patches, "bytes": plan.bytes, **facts}, cost)
        return
    notes.print(f"{cost}.")
    pool = make_scan_pool(plan, options.out)
    facts["value_range"] = pool.value_range
    out.results(
        {"folder": options.out, "patches": len(pool), "bytes": pool.pixels.nbytes, **facts},
        _described(plan, pool.value_range, len(pool), kind, options.out),
    )


def _described(
    plan: ScanPoolPlan, value_range: ValueRange, patches: int, kind: str, folder: Path
) -> str:
    low, high = value_range
    return (
        f"{patches:,} patches of {kind}, with values from {low:g} to {high:g}, "
        f"{decimal(patches * plan.patch_bytes)} in {folder}"
    )


def _require_one_kind(options: PublicOptions) -> None:
    """Check that no option is ignored."""
    unused = PHOTO_OPTIONS if options.size is not None else SCAN_OPTIONS
    for name in unused:
        if name in options.model_fields_set:
            option = f"--{name.replace('_', '-')}"
            how = "without" if options.size is not None else "with"
            raise InstaHideError(
                f"{option} can be used {how} --size only.",
                f"Leave out {option}. `instahide public --help` lists the options of both kinds of "
                "pools.",
            )


def _sides(text: str) -> tuple[int, ...]:
    """The sides of a patch that are typed as H,W or D,H,W."""
    try:
        return tuple(plain_int(part) for part in text.split(","))
    except ValueError:
        raise InstaHideError(
            f"{text!r} does not name the sides of a patch.", "Write H,W or D,H,W as in 64,64,64."
        ) from None


def _range(text: str) -> ValueRange | None:
    """The range that is typed as LO,HI; None for all values."""
    window = read_window(text)
    if window == "full":
        return None
    if window == "file" or isinstance(window[0], str):
        raise InstaHideError(
            f"The window {text!r} depends on the images of the pool, which are not your own.",
            "Write the two values of the window of your own images, as in -1000,400.",
        )
    low, high = window
    return float(low), float(high)

"""`instahide show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from pydantic import Field

from instahide.cli.console import out
from instahide.cli.options import Pool, Source, command
from instahide.data import ImageTable, open_images, open_pool
from instahide.data.display import denormalize, min_max, shown_part
from instahide.data.read_settings import ReadSettings
from instahide.encryption.scheme import Preset, Scheme
from instahide.errors import InstaHideError, IntegrationError, SchemeError
from instahide.utils.atomic_write import atomic_write

if TYPE_CHECKING:
    from instahide.encryption.known_keys import Illustration

_TITLES = ("the mix", "the encoding", "|encoding|:\nwhat it says")
_INK, _PALE = "#1b1f24", "#6b7280"


class ShowOptions(ReadSettings):
    """What `instahide show` takes."""

    source: Source = "mnist-5k"
    public: Pool = "photos"
    scheme: Preset = Field(default="cross", description="how images are mixed")
    k: int = Field(default=4, description="images in a mix")
    noise: float = Field(
        default=0.0,
        description="standard deviation of Gaussian noise, in units of normalized images",
    )
    images: int = Field(default=4, description="rows of the picture")
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("show.png")


@command
def show(options: ShowOptions) -> None:
    """Draw each step of the encryption of some images.

    The figure shows the originals, their partners, the mix, the encoding and |encoding|.
    """
    draw_picture(options)
    out.results({"picture": options.out}, f"Picture: {options.out}")


def draw_picture(options: ShowOptions) -> None:
    """Write the figure.

    Raises:
        InstaHideError: the images or the pool cannot be read, or do not fit the scheme.
    """
    from instahide.encryption.known_keys import illustrate

    scheme = Scheme.preset(options.scheme, options.k, noise=options.noise)
    images = open_images(options.source, **options.read_options())
    count = options.images
    if not 1 <= count <= len(images):
        raise InstaHideError(
            f"The figure cannot show {count} images: there are {len(images)}.",
            f"Choose a number from 1 to {len(images)}.",
        )
    if scheme.private_k > len(images):
        raise SchemeError(
            f"A mix needs {scheme.private_k} private images, but there are only {len(images)}.",
            "Use a smaller k, or more images.",
        )
    pool = open_pool(options.public, images.shape) if scheme.public_k else None
    chosen = np.linspace(0, len(images) - 1, count).astype(np.int64)
    _draw(illustrate(scheme, images, pool, chosen), images, scheme.private_k, options.out)


def _draw(steps: Illustration, images: ImageTable, private_k: int, path: Path) -> None:
    from instahide.encryption.known_keys import CAPTION

    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise IntegrationError(
            "The figure needs matplotlib.", "Install it with `pip install 'instahide[plot]'`."
        ) from error
    count, k = steps.parts.shape[:2]
    # A gap separates the mixed images from the results.
    widths = [1.0] * k + [0.25] + [1.0] * len(_TITLES)
    figure = Figure(figsize=(1.25 * sum(widths), 1.3 * count + 0.7), layout="constrained")
    axes = figure.subplots(count, len(widths), squeeze=False, width_ratios=widths)
    for row in range(count):
        ends = [steps.mixes[row], steps.encodings[row], np.abs(steps.encodings[row])]
        shown = [denormalize(part, images) for part in steps.parts[row]]
        shown += [min_max(end) for end in ends]
        for axis, pixels in zip(np.delete(axes[row], k), shown, strict=True):
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for axis in axes.flat:
        axis.set_axis_off()
    names = [
        "original",
        *["private\npartner"] * (private_k - 1),
        *["public\npartner"] * (k - private_k),
    ]
    for axis, name in zip(np.delete(axes[0], k), [*names, *_TITLES], strict=True):
        axis.set_title(name, fontsize=8, color=_INK)
    part = shown_part(images.shape)
    caption = CAPTION if part is None else f"{CAPTION} Shown: {part}."
    figure.supxlabel(caption, fontsize=7, color=_PALE)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=160, facecolor="white")

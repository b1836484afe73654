"""`instahide show`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import Field

from instahide.cli.console import out
from instahide.cli.options import Pool, Source, command, require_no_input
from instahide.data import ImageTable, open_images, open_pool
from instahide.data.display import denormalize, min_max, shown_part
from instahide.data.read_settings import ReadSettings
from instahide.encryption.scheme import Preset, Scheme
from instahide.errors import InstaHideError, IntegrationError, SchemeError
from instahide.utils.atomic_write import atomic_write

if TYPE_CHECKING:
    from instahide.encryption.known_keys import Illustration

_TITLES = ("mix", "encoding", "|encoding|")
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
    require_no_input(options.out, options.source, options.labels, options.public)
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
    _draw(illustrate(scheme, images, pool, chosen), images, scheme, options.out)


def _draw(steps: Illustration, images: ImageTable, scheme: Scheme, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise IntegrationError(
            "The figure needs matplotlib.", "Install it with `pip install 'instahide[plot]'`."
        ) from error
    count, k = steps.parts.shape[:2]
    # A gap separates the mixed images from the results.
    widths = [1.0] * k + [0.25] + [1.0] * len(_TITLES)
    # A line of text is 0.15 inches high.
    height = 1.35 + 0.15 * (1 + scheme.private_k)
    figure = Figure(figsize=(1.3 * sum(widths), height * count + 0.9), layout="constrained")
    axes = figure.subplots(count, len(widths), squeeze=False, width_ratios=widths)
    for axis in axes[:, k]:
        axis.set_axis_off()
    for row in range(count):
        for axis, (pixels, text) in zip(
            np.delete(axes[row], k), _panels(steps, images, row), strict=True
        ):
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            # A name of a class may have dollar signs, which are no formula.
            axis.set_xlabel(text, fontsize=9, color=_INK, parse_math=False)
    names = [
        "image",
        *["private\npartner"] * (scheme.private_k - 1),
        *["public\npartner"] * scheme.public_k,
    ]
    for axis, name in zip(np.delete(axes[0], k), [*names, *_TITLES], strict=True):
        axis.set_title(name, fontsize=10, color=_INK)
    caption = textwrap.fill(_caption(scheme, images), int(16 * sum(widths)))
    figure.supxlabel(caption, fontsize=9, color=_PALE)
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=140, facecolor="white")


def _caption(scheme: Scheme, images: ImageTable) -> str:
    from instahide.encryption.known_keys import CAPTION, UNMASKED

    text, part = CAPTION if scheme.mask else UNMASKED, shown_part(images.shape)
    return text if part is None else f"{text} Shown: {part}."


def _panels(
    steps: Illustration, images: ImageTable, row: int
) -> Iterator[tuple[NDArray[np.float64], str]]:
    """The pictures of one encryption, each with the text below it."""
    names = [label_text(label, images) for label in steps.labels[row]]
    weights = [f"{weight:.2f}" for weight in steps.coefficients[row]]
    texts = [f"× {weight}\nlabel {name}" for weight, name in zip(weights, names, strict=False)]
    texts += [f"× {weight}\nno label" for weight in weights[len(names) :]]
    for part, text in zip(steps.parts[row], texts, strict=True):
        yield denormalize(part, images), text
    label = [f"{weight} of {name}" for weight, name in zip(weights, names, strict=False)]
    yield min_max(steps.mixes[row]), "\n".join(["label:", *label])
    yield min_max(steps.encodings[row]), "same label"
    yield min_max(np.abs(steps.encodings[row])), ""


def label_text(label: NDArray[np.generic], images: ImageTable) -> str:
    """The label of one image in at most 12 characters."""
    if images.task == "single-label":
        text = images.classes[int(label)]
    elif np.isnan(np.asarray(label, np.float64)).all():
        text = "unknown"
    elif images.task == "multi-label":
        shown = [name for name, value in zip(images.classes, label, strict=True) if value > 0.5]
        text = ", ".join(shown) or "no finding"
    else:
        text = ", ".join(f"{value:.3g}" for value in label)
    return text if len(text) <= 12 else f"{text[:11]}…"

"""`instahide show`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from instahide.data import ImageTable, open_images, open_pool
from instahide.data.display import denormalize, min_max
from instahide.encryption.illustration import CAPTION, Illustration, illustrate
from instahide.errors import InstaHideError, IntegrationError, SchemeError
from instahide.training.settings import TrainSettings
from instahide.utils.atomic_write import atomic_write

_TITLES = ("the mix", "the encoding", "|encoding|:\nwhat it says")
_INK, _PALE = "#1b1f24", "#6b7280"


def draw_picture(
    source: str,
    public: str,
    scheme: str,
    k: int,
    noise: float,
    count: int,
    size: int | None,
    skip_bad: bool,
    out: Path,
) -> None:
    """Write a picture of the encryption of ``count`` images of ``source`` to ``out``."""
    asked = {"scheme": scheme, "k": k, "noise": noise}
    settings = TrainSettings.from_values(asked, "The options").encryption()
    images = open_images(source, size=size, skip_bad=skip_bad)
    if not 1 <= count <= len(images):
        raise InstaHideError(
            f"A picture of {count} images cannot be drawn.", f"Choose from 1 to {len(images)}."
        )
    if settings.private_k > len(images):
        raise SchemeError(
            f"A mix of {settings.private_k} images needs as many; there are {len(images)}.",
            "Lower k, or give more images.",
        )
    pool = open_pool(public, images.shape) if settings.public_k else None
    chosen = np.linspace(0, len(images) - 1, count).astype(np.int64)
    _draw(illustrate(settings, images, pool, chosen), images, settings.private_k, out)


def _draw(steps: Illustration, images: ImageTable, private_k: int, out: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise IntegrationError(
            "Pictures need matplotlib.", "Install it with `pip install 'instahide[plot]'`."
        ) from error
    count, k = steps.parts.shape[:2]
    # The gap in the middle keeps what goes in apart from what comes out.
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
    figure.supxlabel(
        CAPTION,
        fontsize=7,
        color=_PALE,
    )
    with atomic_write(out) as partial:
        figure.savefig(partial, dpi=160, facecolor="white")

"""Writes the best, median and worst recovered image as PNG files, with their originals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instahide.audit.report.schema import Picture
from instahide.audit.scoring.matching import Matches
from instahide.data.display import image_axes
from instahide.utils.atomic_write import atomic_write

Which = Literal["best", "median", "worst"]


def save_images(folder: Path, name: str, matches: Matches) -> list[Picture]:
    """Write some of the recovered images and their originals to ``folder``.

    Args:
        folder: folder of all pictures.
        name: prefix of the file names.
        matches: recovered images with their originals; the best of each private image is used.
    """
    places = matches.best_of_each()
    last = len(places) - 1
    wanted: dict[Which, int] = {"best": 0, "median": last // 2, "worst": last}
    # Two images have no median.
    chosen = {at: which for which, at in reversed(wanted.items())}
    return [
        _saved(folder, f"{name}-{which}", which, matches, int(places[at]))
        for at, which in sorted(chosen.items())
    ]


def _saved(folder: Path, name: str, which: Which, matches: Matches, place: int) -> Picture:
    original, recovered = f"{name}-original.png", f"{name}-recovered.png"
    save_png(folder / original, matches.originals[place])
    save_png(folder / recovered, matches.recovered[place])
    return Picture(
        which=which, ssim=float(matches.ssim[place]), original=original, recovered=recovered
    )


def save_png(path: Path, image: Tensor) -> None:
    """Write what `display.image_axes` shows of ``image``, from 0 to 1, atomically."""
    pixels = image_axes((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    with atomic_write(path) as partial:
        Image.fromarray(np.ascontiguousarray(pixels)).save(partial, format="PNG")

"""Writes the recovered images as PNG files, with their originals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instahide.audit.report.schema import Picture
from instahide.audit.scoring.blank_baseline import counts_as_recovered
from instahide.audit.scoring.matching import Matches
from instahide.data.display import image_axes
from instahide.utils.atomic_write import atomic_write

#: Largest number of pictures of one attack; of more, these are spaced evenly by rank.
MOST_PICTURES = 100
#: Largest number of pixels of all pictures of an attack together, in each channel, so that the page
#: stays small: 64 x 64 for each of a hundred pictures, and more if there are fewer.
MOST_PIXELS = 100 * 64 * 64


def save_images(folder: Path, name: str, matches: Matches) -> list[Picture]:
    """Write the recovered images and their originals to ``folder``, reduced if they are large.

    Args:
        folder: folder of all pictures.
        name: prefix of the file names.
        matches: recovered images with their originals; the best of each private image is used.
    """
    places = matches.best_of_each()
    count = min(len(places), MOST_PICTURES)
    side = int(math.sqrt(MOST_PIXELS / count))
    counted = matches.recognized & counts_as_recovered(matches.ssim, matches.blank)
    recognizable = set(matches.rows[counted].tolist())
    pictures = []
    for rank, place in enumerate(places[torch.linspace(0, len(places) - 1, count).round().long()]):
        original, recovered = f"{name}-{rank}-original.png", f"{name}-{rank}-recovered.png"
        save_png(folder / original, matches.originals[place], side)
        save_png(folder / recovered, matches.recovered[place], side)
        picture = Picture(
            ssim=float(matches.ssim[place]),
            recognizable=int(matches.rows[place]) in recognizable,
            original=original,
            recovered=recovered,
        )
        pictures.append(picture)
    return pictures


def save_png(path: Path, image: Tensor, side: int) -> None:
    """Write what `display.image_axes` shows of ``image``, from 0 to 1, atomically.

    If the image is higher or wider than ``side``, it is reduced to fit.
    """
    pixels = image_axes((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((side, side), Image.Resampling.BOX)
    with atomic_write(path) as partial:
        picture.save(partial, format="PNG")

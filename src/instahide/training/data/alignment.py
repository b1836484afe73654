"""Images to test on that come from somewhere else than the training images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instahide.data import ImageTable
from instahide.errors import DataError


def align_to_model(
    images: ImageTable,
    shape: tuple[int, int, int],
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ImageTable:
    """``images`` under the normalization and the class numbers of a network; classes go by name.

    Args:
        images: to ask a network about.
        shape: (C, H, W) that the network takes.
        classes: the names of its outputs.
        mean: per channel, that its images are normalized by; of pixel / 255.
        std: per channel, likewise.

    Raises:
        DataError: images of another shape, or of a class that the network does not know.
    """
    if images.shape != shape:
        raise DataError(
            f"The images are {images.shape}, the network was trained on {shape} "
            "(channels, height, width).",
            f"Bring them to its size with `size={shape[1]}`.",
        )
    numbers = np.asarray(output_columns(images.classes, classes), np.int64)
    return replace(images, labels=numbers[images.labels], classes=classes, mean=mean, std=std)


def output_columns(names: tuple[str, ...], classes: tuple[str, ...]) -> list[int]:
    """Which of a network's outputs ``classes`` each of ``names`` is.

    Raises:
        DataError: a name is not among them.
    """
    strange = sorted(set(names) - set(classes))
    if strange:
        raise DataError(
            f"The network knows no class {', '.join(strange[:5])}.",
            f"It knows {', '.join(classes[:20])}.",
        )
    return [classes.index(name) for name in names]

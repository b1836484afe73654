"""Alignment of test images from another source to a trained network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instahide.data import ImageTable
from instahide.data.table import Normalized
from instahide.errors import DataError


def align_to_model(
    images: ImageTable,
    shape: tuple[int, ...],
    classes: tuple[str, ...],
    normalization: Normalized,
) -> ImageTable:
    """``images`` with the normalization and class numbers of a network; classes match by name.

    Args:
        images: the images to classify.
        shape: (C, H, W) of the network's images.
        classes: names of the network's outputs.
        normalization: the normalization of the network's images.

    Raises:
        DataError: the images have another shape, or a class that the network lacks.
    """
    if images.shape != shape:
        raise DataError(
            f"The images are {images.shape}, the network was trained on {shape} "
            "(channels, height, width).",
            f"Bring them to its size with `size={shape[1]}`.",
        )
    numbers = np.asarray(output_columns(images.classes, classes), np.int64)
    numbered = replace(images, labels=numbers[images.labels], classes=classes)
    return numbered.normalized_like(normalization)


def output_columns(names: tuple[str, ...], classes: tuple[str, ...]) -> list[int]:
    """The index in ``classes`` of each of ``names``.

    Raises:
        DataError: a name is not in ``classes``.
    """
    strange = sorted(set(names) - set(classes))
    if strange:
        raise DataError(
            f"The network knows no class {', '.join(strange[:5])}.",
            f"It knows {', '.join(classes[:20])}.",
        )
    return [classes.index(name) for name in names]

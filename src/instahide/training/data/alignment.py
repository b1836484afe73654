"""Alignment of test images from another source to a trained network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instahide.data import ImageTable
from instahide.data.labels import Task, matched_labels, require_one_task
from instahide.data.normalization.normalization import Normalized
from instahide.data.pixels import EIGHT_BIT, ValueRange, clip_pixels
from instahide.errors import DataError

#: Rows whose pixels tell whether images are in the unit of the network's, at most.
RANGE_ROWS = 200


def align_to_model(
    images: ImageTable,
    shape: tuple[int, ...],
    classes: tuple[str, ...],
    normalization: Normalized,
    task: Task = "single-label",
) -> ImageTable:
    """``images`` with the normalization and the outputs of a network; classes match by name.

    Findings that the images do not state are unknown.

    Args:
        images: the images to classify.
        shape: (C, H, W) of the network's images, or (C, D, H, W) of its volumes.
        classes: names of the network's outputs.
        normalization: the normalization of the network's images. Pixels beyond its value range,
            which its own images do not have, are set to the nearer end.
        task: what the network's outputs are.

    Raises:
        DataError: the images have another shape, pixels of another unit, labels of another task, or
            a class that the network lacks.
    """
    if images.shape != shape:
        raise DataError(
            f"The images are {images.shape}, the network was trained on {shape}: channels, then "
            "the spatial dimensions.",
            f"Bring them to its size with `size={min(shape[1:])}`.",
        )
    require_one_task([task, images.task], ["the network", "the images"])
    images = _within_range(images, normalization.value_range)
    labels = matched_labels(images.labels, images.classes, classes, task)
    return replace(images, labels=labels, classes=classes).normalized_like(normalization)


def _within_range(images: ImageTable, value_range: ValueRange) -> ImageTable:
    """``images`` with no pixel beyond ``value_range``, the range of the network's images."""
    if images.value_range == value_range:
        return images
    low, high = value_range
    rows = slice(None, None, max(1, -(-len(images) // RANGE_ROWS)))
    sample = images.pixels[rows].astype(np.float64)
    # The background may be as dark in any unit.
    bright = sample[sample > low]
    other_unit = value_range == EIGHT_BIT and images.pixels.dtype != np.uint8
    if other_unit or (bright > high).sum() > len(bright) / 2:
        raise DataError(
            f"The pixels of the images range from {images.value_range[0]:g} to "
            f"{images.value_range[1]:g}, those that the network was trained on from {low:g} to "
            f"{high:g}.",
            "Give images of the same bit depth and unit, or train on images like these.",
        )
    return images.with_pixels(clip_pixels(images.pixels, value_range), value_range)

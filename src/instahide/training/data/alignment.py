"""Alignment of test images from another source to a trained network."""

from __future__ import annotations

from dataclasses import replace

from instahide.data import ImageTable
from instahide.data.labels import Task, matched_labels, require_one_task
from instahide.data.normalization.normalization import Normalized
from instahide.data.pixel_units import require_same_unit
from instahide.data.pixels import ValueRange
from instahide.data.readers.window import clipped
from instahide.errors import DataError


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
    images = to_value_range(images, normalization.value_range)
    labels = matched_labels(images.labels, images.classes, classes, task)
    return replace(images, labels=labels, classes=classes).normalized_like(normalization)


def to_value_range(images: ImageTable, value_range: ValueRange) -> ImageTable:
    """``images`` with the range of values of other images; pixels beyond it are set to its ends.

    Args:
        images: the images.
        value_range: that of the images that a network or encodings were made from.

    Raises:
        DataError: the pixels seem to be in another unit than those images.
    """
    if images.value_range == value_range or not len(images):
        return images
    require_same_unit(images.pixels, value_range)
    return clipped(images, value_range)

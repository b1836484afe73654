"""Conversion of normalized values to pixels for display.

Of a volume the middle slice is shown, and of images with 2 or more than 3 channels the first ones.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from instahide.data.normalization.normalization import Normalized

Scalar = TypeVar("Scalar", bound=np.generic)


def denormalize(image: NDArray[np.float32], normalization: Normalized) -> NDArray[np.float64]:
    """(C, H, W) or (C, D, H, W) normalized -> (H, W) or (H, W, 3) in [0, 1], as in the file."""
    mean, std = (
        np.asarray(moment).reshape(-1, *[1] * (image.ndim - 1))
        for moment in (normalization.mean, normalization.std)
    )
    return image_axes(np.clip(image * std + mean, 0, 1))


def min_max(values: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, H, W) or (C, D, H, W) of any range -> (H, W) or (H, W, 3) in [0, 1]."""
    plane = image_axes(values)
    low, high = plane.min(), plane.max()
    return np.asarray((plane - low) / (high - low or 1), np.float64)


def image_axes(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """What is shown of (C, H, W) or (C, D, H, W): (H, W, 3) of 3 channels or more, else (H, W).

    Of a volume it is the slice in the middle, of two channels the first, of more the first three.
    """
    if values.ndim == 4:
        values = values[:, values.shape[1] // 2]
    return values[0] if len(values) < 3 else np.moveaxis(values[:3], 0, -1)


def shown_part(shape: tuple[int, ...]) -> str | None:
    """What a picture shows of images of ``shape``, in words; None if it shows all of them.

    Examples:
        >>> from instahide.data.display import shown_part
        >>> shown_part((5, 16, 64, 64))
        'channels 1 to 3 of 5, slice 9 of 16'
    """
    parts = []
    if shape[0] not in (1, 3):
        shown = "channel 1" if shape[0] == 2 else "channels 1 to 3"
        parts.append(f"{shown} of {shape[0]}")
    if len(shape) == 4:
        parts.append(f"slice {shape[1] // 2 + 1} of {shape[1]}")
    return ", ".join(parts) or None

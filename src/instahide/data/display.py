"""Conversion of normalized values to pixels for display."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from instahide.data.table import Normalized

Scalar = TypeVar("Scalar", bound=np.generic)


def denormalize(image: NDArray[np.float32], normalization: Normalized) -> NDArray[np.float64]:
    """(C, H, W) normalized -> (H, W) or (H, W, 3) in [0, 1], as in the image file."""
    mean, std = (
        np.asarray(moment)[:, None, None] for moment in (normalization.mean, normalization.std)
    )
    return image_axes(np.clip(image * std + mean, 0, 1))


def min_max(values: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, H, W) of any range -> (H, W) or (H, W, 3) in [0, 1]."""
    low, high = values.min(), values.max()
    return image_axes((values - low) / (high - low or 1))


def image_axes(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """(C, H, W) -> (H, W) if there is one channel, else (H, W, C)."""
    return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)

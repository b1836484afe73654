"""Validation of row numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError


def row_indices(indices: object, count: int, *, flat: bool = True) -> NDArray[np.int64]:
    """Convert row numbers to int64; a boolean mask selects its true rows, as in NumPy.

    Args:
        indices: integers from 0 to ``count`` - 1, or a boolean mask (count,).
        count: number of rows.
        flat: whether ``indices`` must be one-dimensional.

    Raises:
        InstaHideError: ``indices`` are not integers or are out of range, or the mask has another
            length.
    """
    values = np.asarray(indices)
    if values.dtype == np.bool:
        if values.shape != (count,):
            raise InstaHideError(
                f"A boolean mask of shape {values.shape} was given for {count} images.",
                f"Give a mask of shape ({count},), or whole numbers.",
            )
        return np.flatnonzero(values)
    if flat and values.ndim != 1:
        raise InstaHideError(
            f"The image numbers have shape {values.shape}.", "Give a list of whole numbers."
        )
    if values.size == 0:
        return np.empty(values.shape, np.int64)
    if values.dtype.kind not in "iu":
        raise InstaHideError(
            f"Image numbers of type {values.dtype} are not whole numbers.",
            "Give whole numbers, or a boolean mask with one value for each image.",
        )
    if values.min() < 0 or values.max() >= count:
        raise InstaHideError(
            f"An image number is out of range: there are {count} images.",
            f"Use 0 to {count - 1}." if count else "Give at least one image.",
        )
    return values.astype(np.int64, copy=False)

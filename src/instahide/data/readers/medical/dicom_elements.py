"""Elements of DICOM data sets, and the error for what cannot be read."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class RefusedError(ValueError):
    """A reason that holds nothing of the file but numbers of its image."""


def plain(value: Any) -> Any:
    """``value``, one or more numbers, after a check that their texts are of ASCII digits.

    pydicom reads them as Python does, which also takes ``1_0``.

    Raises:
        RefusedError: a number has other digits or underscores.
    """
    for one in value if isinstance(value, MutableSequence) else [value]:
        text = getattr(one, "original_string", "")
        if "_" in text or not text.isascii():
            raise RefusedError("it holds a number that is not written in the digits 0 to 9")
    return value


def numbers(part: Dataset | None, name: str) -> NDArray[np.float64]:
    """The numbers of the element ``name``; none if ``part`` is None or does not state it.

    Raises:
        RefusedError: as `plain`.
    """
    value = None if part is None else plain(part.get(name))
    return np.asarray([] if value is None else value, np.float64).reshape(-1)

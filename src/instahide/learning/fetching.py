"""What runs in the workers of a wrapped `DataLoader`: everything there is the user's own, no key.

A batch is asked for by its images and their partners. The user's data set gives both, and the
user's collate makes a batch of each, so that the first is what it would have been without us. Each
answer bears the number of its request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils.data import Dataset, get_worker_info


class Request(NamedTuple):
    """The items to fetch: the batch's ``own``, and ``others`` that they are mixed with."""

    number: int
    own: list[int]
    others: list[int]


class Fetched(NamedTuple):
    """What was asked for under ``number``: items, and once collated, batches.

    ``others`` is None where a batch needs none.
    """

    number: int
    own: Any
    others: Any


class Items(Dataset[Any]):
    """The user's data set, asked for a batch and its partners at a time."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, request: Request) -> Fetched:
        """What the request names, own items first."""
        own = self._items(request.own)
        return Fetched(request.number, own, self._items(request.others) if request.others else None)

    def _items(self, indices: list[int]) -> Any:
        # As PyTorch would ask the data set itself.
        if getattr(self.dataset, "__getitems__", None):
            return self.dataset.__getitems__(indices)
        return [self.dataset[index] for index in indices]


class Collate:
    """The user's collate, for both."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, fetched: Any) -> Fetched:
        """Both parts of what was `Fetched` as batches."""
        own = self.collate(fetched.own)
        others = None if fetched.others is None else self.collate(fetched.others)
        return Fetched(fetched.number, own, others)


class WorkerInit:
    """The user's function, called where `get_worker_info` tells of the user's own data set."""

    def __init__(self, function: Callable[[int], None] | None) -> None:
        self.function = function

    def __call__(self, worker: int) -> None:
        """Set up a worker."""
        info = get_worker_info()
        if info is not None:
            items: Any = info.dataset
            # It is locked. But whoever looks for a data set there expects their own.
            object.__setattr__(info, "dataset", items.dataset)
        if self.function is not None:
            self.function(worker)

"""What runs in the workers of a wrapped `DataLoader`: everything there is the user's own, no key.

A batch is asked for by its images and their partners. The user's data set gives both, and the
user's collate makes a batch of each, so that the first is what it would have been without us. Each
answer bears the number of its request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils.data import Dataset, get_worker_info

from instahide.integrations.dataloader.batch_fields import Path
from instahide.integrations.dataloader.checked_collate import CheckedCollate, FetchedItems


class FetchRequest(NamedTuple):
    """The items to fetch: the batch's ``targets``, and ``partners`` that they are mixed with."""

    number: int
    targets: list[int]
    partners: list[int]


class FetchedBatch(NamedTuple):
    """What was asked for under ``number``: items as `FetchedItems`, and once collated, batches.

    ``partners`` is None where a batch needs none. ``images``: of each batch the field where every
    image was found to be its item's own; None where that is not so. ``refusal``: why not.
    """

    number: int
    targets: Any
    partners: Any
    images: tuple[str | None, ...] = ()
    refusal: tuple[str, str] | None = None


class FetchDataset(Dataset[Any]):
    """The user's data set, asked for a batch and its partners at a time."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, request: FetchRequest) -> FetchedBatch:
        """What the request names, own items first."""
        targets = self._part(request.targets)
        partners = self._part(request.partners) if request.partners else None
        return FetchedBatch(request.number, targets, partners)

    def _part(self, indices: list[int]) -> FetchedItems:
        # As PyTorch would ask the data set itself.
        if getattr(self.dataset, "__getitems__", None):
            return FetchedItems(self.dataset.__getitems__(indices), len(indices), whole=True)
        return FetchedItems([self.dataset[index] for index in indices], len(indices), whole=False)


class FetchCollate:
    """The user's collate, for both.

    Args:
        collate: makes a batch of items.
        image: the path to the images of a batch; looked for in each batch by default.
    """

    def __init__(self, collate: Callable[[Any], Any], image: Path | None) -> None:
        self.collate = CheckedCollate(collate, image)

    def __call__(self, given: Any) -> FetchedBatch:
        """Both parts of a `FetchedBatch` as batches."""
        fetched: FetchedBatch = given
        parts = (fetched.targets, fetched.partners)
        made = [self.collate(part) for part in parts if part is not None]
        return FetchedBatch(
            fetched.number,
            made[0].batch,
            None if fetched.partners is None else made[1].batch,
            tuple(each.image for each in made),
            next((each.refusal for each in made if each.refusal), None),
        )


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

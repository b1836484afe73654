"""The code that runs in the workers of a wrapped `DataLoader`, where there are no keys.

A request names the items of a batch and their partners. The user's data set fetches both, and the
user's collate function makes a batch of each, so that the first one is the same as without
wrapping. Each result has the number of its request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils.data import Dataset, get_worker_info

from instahide.integrations.dataloader.batch_fields import Path
from instahide.integrations.dataloader.checked_collate import CheckedCollate, FetchedItems


class FetchRequest(NamedTuple):
    """The items to fetch: ``targets`` of the batch, and further ``partners`` of their mixes."""

    number: int
    targets: list[int]
    partners: list[int]


class FetchedBatch(NamedTuple):
    """The result of request ``number``: items as `FetchedItems`, or batches after collation.

    ``partners`` is None if the batch needs none. ``images``: for each batch, the path of its images
    if every image is known to be that of its item, else None. ``refusal``: why it is not.
    """

    number: int
    targets: Any
    partners: Any
    images: tuple[str | None, ...] = ()
    refusal: tuple[str, str] | None = None


class FetchDataset(Dataset[Any]):
    """The user's data set, which fetches a batch and its partners in one call."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, request: FetchRequest) -> FetchedBatch:
        """The items of a request: targets and partners."""
        targets = self._part(request.targets)
        partners = self._part(request.partners) if request.partners else None
        return FetchedBatch(request.number, targets, partners)

    def _part(self, indices: list[int]) -> FetchedItems:
        # The same calls as PyTorch's fetcher.
        if getattr(self.dataset, "__getitems__", None):
            return FetchedItems(self.dataset.__getitems__(indices), len(indices), whole=True)
        return FetchedItems([self.dataset[index] for index in indices], len(indices), whole=False)


class FetchCollate:
    """The user's collate function, applied to targets and partners.

    Args:
        collate: makes a batch from items.
        image: path of the images in a batch; by default it is found in each batch.
    """

    def __init__(self, collate: Callable[[Any], Any], image: Path | None) -> None:
        self.collate = CheckedCollate(collate, image)

    def __call__(self, items: Any) -> FetchedBatch:
        """Collate both parts of a `FetchedBatch`."""
        fetched: FetchedBatch = items
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
    """The user's function, called with the user's data set in `get_worker_info`."""

    def __init__(self, function: Callable[[int], None] | None) -> None:
        self.function = function

    def __call__(self, worker: int) -> None:
        """Set up a worker."""
        info = get_worker_info()
        if info is not None:
            items: Any = info.dataset
            # Bypasses the lock, since the function expects the user's data set there.
            object.__setattr__(info, "dataset", items.dataset)
        if self.function is not None:
            self.function(worker)

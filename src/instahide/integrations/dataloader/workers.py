"""The code that runs in the workers of a wrapped `DataLoader`, where there are no keys.

A request names the items of a batch and their partners. The user's data set fetches both, and the
user's collate function makes a batch of each, so that the first one is the same as without
wrapping. Each result has the number of its request.

If a collate function mixed images, they would go into encodings without being counted. Every row
of the images must therefore equal an array of its item, or the result of the collate function for
that item.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from instahide.errors import InstaHideError
from instahide.integrations.dataloader.batch_fields import (
    Path,
    find_images,
    get_field,
    leaves,
    path_text,
)

#: Largest rounding difference between a batch and a single image, relative to the largest value.
ROUNDING = 1e-5


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


class FetchedItems(NamedTuple):
    """The items of a data set for ``size`` item numbers.

    ``whole``: whether they were fetched by one call, so that they may be a batch already.
    """

    items: Any
    size: int
    whole: bool


class CollatedBatch(NamedTuple):
    """A batch with the path of its images, if each is the image of its item.

    ``refusal``: problem and remedy, if one is not. A worker cannot raise these as an error.
    """

    batch: Any
    image: str | None
    refusal: tuple[str, str] | None


class CheckedCollate:
    """The user's collate function, with a check of every batch.

    Args:
        collate: makes a batch from a list of items.
        image: path of the images in a batch; by default it is found in each batch.
    """

    def __init__(self, collate: Callable[[Any], Any], image: Path | None) -> None:
        self.collate = collate
        self.image = image
        # The path of the image in an item, once known.
        self._place: Path | None = None

    def __call__(self, part: FetchedItems) -> CollatedBatch:
        """Collate ``part`` and check the batch."""
        listed = isinstance(part.items, (list, tuple)) and len(part.items) == part.size
        # The function may remove fields from the items.
        kept = [copy.copy(item) for item in part.items] if listed else part.items
        images = self._stacked(kept) if listed else None
        sums, before = (_checksums(kept) if images is None else []), _generators()
        batch = self.collate(part.items)
        path, rows = self._images(batch, part.size)
        if path is None or rows is None:
            return CollatedBatch(batch, None, None)
        if images is not None and _same(rows, images):
            return CollatedBatch(batch, path_text(path), None)
        if _checksums(kept) != sums if images is None else _changed(images, self._stacked(kept)):
            return CollatedBatch(batch, None, _refusal("changes the data set's images in place"))
        if part.whole and _path_among(rows, kept) is not None:
            return CollatedBatch(batch, path_text(path), None)
        if not listed:
            return CollatedBatch(
                batch, None, _refusal("changes a batch that the data set has made")
            )
        wrong = self._first_wrong(kept, path, rows, before)
        if wrong is None:
            return CollatedBatch(batch, path_text(path), None)
        reason = f"gives another image in row {wrong} of a batch than it gives for that item alone"
        return CollatedBatch(batch, None, _refusal(reason))

    def _first_wrong(
        self, items: list[Any], path: Path, rows: Tensor, before: _Generators
    ) -> int | None:
        """The first of ``items`` whose row is not its own image."""
        after = None
        for place, (item, row) in enumerate(zip(items, rows, strict=True)):
            found = _path_among(row, item)
            if found is not None:
                self._place = found
                continue
            after = after or _generators()
            if not self._alone(item, path, row, before):
                _set_generators(after)
                return place
        if after is not None:
            _set_generators(after)
        return None

    def _stacked(self, items: list[Any]) -> Tensor | None:
        """A copy of the images of ``items``, before they can be changed; None if unknown."""
        if self._place is None or not items:
            return None
        try:
            images = [_tensor(get_field(item, self._place)) for item in items]
        except InstaHideError:
            return None
        known = [each for each in images if each is not None]
        alike = len({(each.shape, each.dtype) for each in known}) == 1
        return torch.stack(known) if alike and len(known) == len(items) else None

    def _images(self, batch: Any, count: int) -> tuple[Path | None, Tensor | None]:
        """Path and values of the images of ``batch``; None if they cannot be encrypted."""
        try:
            path = find_images(batch, count) if self.image is None else self.image
            images = _tensor(get_field(batch, path))
        except InstaHideError:
            # The same error is raised when the batch is read.
            return None, None
        if images is None or images.ndim != 4 or len(images) != count:
            return None, None
        return path, images

    def _alone(self, item: Any, path: Path, row: Tensor, before: _Generators) -> bool:
        """Whether the function makes ``row`` of ``item`` alone, with the same random numbers."""
        _set_generators(before)
        try:
            alone = _tensor(get_field(self.collate([item]), path))
        except Exception:  # the user's code, which may need more than one item
            return False
        if alone is None or alone.shape != (1, *row.shape):
            return False
        near = ROUNDING * float(row.abs().nan_to_num(0, 0, 0).max()) if row.numel() else 0.0
        return torch.allclose(alone[0].to(row.dtype), row, rtol=0, atol=near, equal_nan=True)


def _refusal(reason: str) -> tuple[str, str]:
    return (
        f"The collate function of the loader {reason}. Images that it mixes, reorders or changes "
        "at random cannot be counted as what goes into an encoding.",
        "Move random transforms of single images into the data set, and leave out Mixup, CutMix "
        "and mosaics: InstaHide mixes images itself. The collate function may stack images, and "
        "preprocess each by itself.",
    )


def _path_among(row: Tensor, holder: Any) -> Path | None:
    """The path of an array in ``holder`` with the values of ``row``, if there is one."""
    for path, leaf in leaves(holder, ()):
        # For a PIL image the leaf has only the shape.
        if leaf.shape == row.shape and not hasattr(get_field(holder, path), "getbands"):
            values = _tensor(leaf)
            if values is not None and _same(row, values):
                return path
    return None


def _changed(before: Tensor, now: Tensor | None) -> bool:
    return now is None or not _same(before, now)


def _same(row: Tensor, other: Tensor) -> bool:
    """Whether ``other``, converted to the type of ``row``, has the same values."""
    if row.shape != other.shape:
        return False
    other = other.to(row.dtype)
    # NaN counts as equal here: it is an error when the batch is read.
    return torch.equal(row, other) or torch.allclose(row, other, rtol=0, atol=0, equal_nan=True)


def _tensor(leaf: Any) -> Tensor | None:
    """``leaf`` as a tensor that shares its memory; None if it is not an array or CPU tensor."""
    if isinstance(leaf, np.ndarray):
        return torch.from_numpy(leaf) if leaf.dtype.kind in "fiu" else None
    if not isinstance(leaf, Tensor) or leaf.device.type != "cpu":
        return None
    return leaf.detach().as_subclass(Tensor)


def _checksums(items: Any) -> list[int]:
    """Checksums of all images of ``items``: they detect changes in place, but no permutation."""
    return [
        int(words.sum(dtype=np.uint64))
        for item in (items if isinstance(items, (list, tuple)) else [items])
        for words in _words(item)
    ]


def _words(item: Any) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
    for pixels in _pixels(item):
        flat = np.ascontiguousarray(pixels).reshape(-1)
        yield flat.view(f"u{min(flat.itemsize, 4)}")


def _pixels(item: Any) -> Iterator[NDArray[Any]]:
    for path, leaf in leaves(item, ()):
        held = get_field(item, path)
        if hasattr(held, "getbands"):
            yield np.asarray(held)
            continue
        tensor = _tensor(leaf)
        if tensor is not None and tensor.ndim > 1:
            tensor = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
            yield tensor.numpy()


class _Generators(NamedTuple):
    """The states of the user's global random generators."""

    torch: Tensor
    numpy: Any
    python: Any


def _generators() -> _Generators:
    return _Generators(torch.get_rng_state(), np.random.get_state(), random.getstate())


def _set_generators(states: _Generators) -> None:
    torch.set_rng_state(states.torch)
    np.random.set_state(states.numpy)
    random.setstate(states.python)

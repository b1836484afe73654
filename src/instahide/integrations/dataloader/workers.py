"""The code that runs in the workers of a wrapped `DataLoader`, where there are no keys.

A request names the items of a batch and their partners. The user's data set fetches both, and the
user's collate function makes a batch of each, so that the first one is the same as without
wrapping. Each result has the number of its request.

If a collate function mixed images, they would go into encodings without being counted. Every row
of the images must therefore equal an array of its item, or the result of the collate function for
that item. A data set that makes several items in one call is checked by fetching some again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from instahide.data.duplicates.repeatable_transforms import RepeatableTransforms
from instahide.data.readers.color_modes import is_pil_image
from instahide.errors import InstaHideError
from instahide.integrations.dataloader.batch_fields import (
    Path,
    find_images,
    get_field,
    leaves,
    path_text,
)
from instahide.integrations.dataloader.batched_fetch import (
    BatchedFetch,
    BatchedFetchCheck,
    GeneratorStates,
    gives_batches,
    is_near,
)

#: A user's collate function: what it takes is up to the data set.
Collate: TypeAlias = Callable[[Any], object]
T_co = TypeVar("T_co", covariant=True)


class FetchRequest(NamedTuple):
    """The items to fetch: ``targets`` of the batch, and further ``partners`` of their mixes."""

    number: int
    targets: list[int]
    partners: list[int]


class FetchedItems(NamedTuple):
    """The items of a data set for ``size`` item numbers.

    ``whole``: whether they were fetched by one call, so that they may be a batch already.
    ``call``: that call, if it may have mixed the items.
    """

    items: object
    size: int
    whole: bool
    call: BatchedFetch | None = None

    def copies(self) -> list[object] | None:
        """Shallow copies of the items; None if they are a batch already."""
        if isinstance(self.items, (list, tuple)) and len(self.items) == self.size:
            return [copy.copy(item) for item in self.items]
        return None


class FetchedParts(NamedTuple):
    """The items of request ``number``; ``partners`` is None if its batch needs none."""

    number: int
    targets: FetchedItems
    partners: FetchedItems | None


class FetchedBatch(NamedTuple):
    """The batches that the collate function made of the items of request ``number``.

    ``partners`` is None if the batch needs none. ``images``: for each batch, the path of its images
    if every image is known to be that of its item, else None. ``refusal``: why it is not.
    """

    number: int
    targets: object
    partners: object
    images: tuple[str | None, ...] = ()
    refusal: tuple[str, str] | None = None


class UserDataset(Dataset[T_co]):
    """A data set of what is made, in a worker, from items of the user's ``dataset``."""

    def __init__(self, dataset: Dataset[object]) -> None:
        self.dataset = dataset

    def fetch(self, indices: list[int]) -> FetchedItems:
        """The items with the numbers ``indices``, by the same calls as PyTorch's fetcher."""
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(indices) if fetch else [self.dataset[index] for index in indices]
        return FetchedItems(items, len(indices), whole=bool(fetch))


class FetchDataset(UserDataset[FetchedParts]):
    """The user's data set, which fetches a batch and its partners in one call."""

    def __init__(self, dataset: Dataset[object], collate: Collate) -> None:
        super().__init__(dataset)
        self._collate = collate
        #: Made in the process that uses it.
        self._own: RepeatableTransforms | None = None

    def fetch(self, indices: list[int]) -> FetchedItems:
        """The items with the numbers ``indices``, and how they were fetched."""
        if not gives_batches(self.dataset):
            return super().fetch(indices)
        if self._own is None:
            self._own = RepeatableTransforms(self.dataset, self._collate)
        before = GeneratorStates.now()
        items = super().fetch(indices)
        again = super().fetch
        call = BatchedFetch(lambda numbers: again(numbers).items, indices, before, self._own)
        return items._replace(call=call)

    def __getitems__(self, request: FetchRequest) -> list[FetchedParts]:
        """The items of a request: targets and partners."""
        targets = self.fetch(request.targets)
        partners = self.fetch(request.partners) if request.partners else None
        return [FetchedParts(request.number, targets, partners)]


class FetchCollate:
    """The user's collate function, applied to targets and partners.

    Args:
        collate: makes a batch from items.
        image: path of the images in a batch; by default it is found in each batch.
    """

    def __init__(self, collate: Collate, image: Path | None) -> None:
        self.collate = CheckedCollate(collate, image)

    def __call__(self, request: list[FetchedParts]) -> FetchedBatch:
        """Collate both parts of a request."""
        (fetched,) = request
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
        if info is not None and isinstance(info.dataset, UserDataset):
            # Bypasses the lock, since the function expects the user's data set there.
            object.__setattr__(info, "dataset", info.dataset.dataset)
        if self.function is not None:
            self.function(worker)


class CollatedBatch(NamedTuple):
    """A batch with the path of its images, if each is the image of its item.

    ``refusal``: problem and remedy, if one is not. A worker cannot raise these as an error.
    """

    batch: object
    image: str | None
    refusal: tuple[str, str] | None


class CheckedCollate:
    """The user's collate function, with a check of every batch.

    Args:
        collate: makes a batch from a list of items.
        image: path of the images in a batch; by default it is found in each batch.
    """

    def __init__(self, collate: Collate, image: Path | None) -> None:
        self.collate = collate
        self.image = image
        # The path of the image in an item, once known.
        self._place: Path | None = None
        self._fetches = BatchedFetchCheck(self._images_alone)

    def __call__(self, part: FetchedItems) -> CollatedBatch:
        """Collate ``part`` and check the batch."""
        before = GeneratorStates.now()
        made = self._collated(part)
        if part.call is None or made.image is None:
            return made
        _, rows = self._images(made.batch, part.size)
        place = None if rows is None else self._fetches.mixed_row(part.call, rows, before)
        if place is None:
            return made
        reason = f"gives another image in row {place} of a batch than with copies of that item"
        refusal = _refusal(reason, "The data set, which makes several items in one call,")
        return CollatedBatch(made.batch, None, refusal)

    def _images_alone(self, items: object, count: int) -> Tensor | None:
        """The images of a batch of ``items``, without a check."""
        return self._images(self.collate(items), count)[1]

    def _collated(self, part: FetchedItems) -> CollatedBatch:
        """The batch of ``part``, where each image is checked to be that of its item."""
        # The function may remove fields from the items.
        items = part.copies()
        if several := _several_samples(items):
            return CollatedBatch(self.collate(part.items), None, several)
        kept = part.items if items is None else items
        images = self._stacked(items)
        sums, before = (_checksums(kept) if images is None else []), GeneratorStates.now()
        batch = self.collate(part.items)
        path, rows = self._images(batch, part.size)
        if path is None or rows is None:
            return CollatedBatch(batch, None, None)
        if images is not None and _same(rows, images):
            return CollatedBatch(batch, path_text(path), None)
        if _checksums(kept) != sums if images is None else _changed(images, self._stacked(items)):
            return CollatedBatch(batch, None, _refusal("changes the data set's images in place"))
        if part.whole and _path_among(rows, kept) is not None:
            return CollatedBatch(batch, path_text(path), None)
        if items is None:
            return CollatedBatch(
                batch, None, _refusal("changes a batch that the data set has made")
            )
        wrong = self._first_wrong(items, path, rows, before)
        if wrong is None:
            return CollatedBatch(batch, path_text(path), None)
        reason = f"gives another image in row {wrong} of a batch than it gives for that item alone"
        return CollatedBatch(batch, None, _refusal(reason))

    def _first_wrong(
        self, items: list[object], path: Path, rows: Tensor, before: GeneratorStates
    ) -> int | None:
        """The first of ``items`` whose row is not its own image."""
        after = None
        for place, (item, row) in enumerate(zip(items, rows, strict=True)):
            found = _path_among(row, item)
            if found is not None:
                self._place = found
                continue
            after = after or GeneratorStates.now()
            if not self._alone(item, path, row, before):
                after.restore()
                return place
        if after is not None:
            after.restore()
        return None

    def _stacked(self, items: list[object] | None) -> Tensor | None:
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

    def _images(self, batch: object, count: int) -> tuple[Path | None, Tensor | None]:
        """Path and values of the images of ``batch``; None if they cannot be encrypted."""
        try:
            path = find_images(batch, count) if self.image is None else self.image
            images = _tensor(get_field(batch, path))
        except InstaHideError:
            # The same error is raised when the batch is read.
            return None, None
        if images is None or images.ndim not in (3, 4, 5) or len(images) != count:
            return None, None
        return path, images

    def _alone(self, item: object, path: Path, row: Tensor, before: GeneratorStates) -> bool:
        """Whether the function makes ``row`` of ``item`` alone, with the same random numbers."""
        before.restore()
        try:
            alone = _tensor(get_field(self.collate([item]), path))
        except Exception:  # the user's code, which may need more than one item
            return False
        return alone is not None and is_near(alone, row[None])


def _several_samples(items: list[object] | None) -> tuple[str, str] | None:
    """Problem and remedy, if an item is a list of several samples, as of some MONAI transforms."""
    for item in items or ():
        if isinstance(item, list) and len(item) > 1 and isinstance(item[0], Mapping):
            return (
                f"An item of the data set is a list of {len(item)} samples, which a batch holds as "
                "so many images. Exposure and partners are counted by item.",
                "Let the transform make one sample of an item (`num_samples=1`), and take more "
                "epochs; or make a data set in which each sample is an item.",
            )
    return None


def _refusal(reason: str, of: str = "The collate function of the loader") -> tuple[str, str]:
    return (
        f"{of} {reason}. The exposure of images that it mixes, "
        "reorders or changes at random cannot be counted.",
        "Move random transforms of single images into the data set, and leave out Mixup, CutMix "
        "and mosaics: InstaHide mixes images itself. The collate function may stack images, and "
        "preprocess each by itself.",
    )


def _path_among(row: Tensor, holder: object) -> Path | None:
    """The path of an array in ``holder`` with the values of ``row``, if there is one."""
    for path, leaf in leaves(holder, ()):
        # For a PIL image the leaf has only the shape.
        if leaf.shape == row.shape and not is_pil_image(get_field(holder, path)):
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


def _tensor(leaf: object) -> Tensor | None:
    """``leaf`` as a tensor that shares its memory; None if it is not an array or CPU tensor."""
    if isinstance(leaf, np.ndarray):
        return torch.from_numpy(leaf) if leaf.dtype.kind in "fiu" else None
    if not isinstance(leaf, Tensor) or leaf.device.type != "cpu":
        return None
    return leaf.detach().as_subclass(Tensor)


def _checksums(items: object) -> list[int]:
    """Checksums of all images of ``items``: they detect changes in place, but no permutation."""
    return [
        int(words.sum(dtype=np.uint64))
        for item in (items if isinstance(items, (list, tuple)) else [items])
        for words in _words(item)
    ]


def _words(item: object) -> Iterator[NDArray[np.unsignedinteger]]:
    for pixels in _pixels(item):
        flat = np.ascontiguousarray(pixels).reshape(-1)
        yield flat.view(f"u{min(flat.itemsize, 4)}")


def _pixels(item: object) -> Iterator[NDArray[np.generic]]:
    for path, leaf in leaves(item, ()):
        held = get_field(item, path)
        if is_pil_image(held):
            yield np.asarray(held)
            continue
        tensor = _tensor(leaf)
        if tensor is not None and tensor.ndim > 1:
            tensor = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
            yield tensor.numpy()

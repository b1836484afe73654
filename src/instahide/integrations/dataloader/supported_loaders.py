"""Which loaders can be wrapped, and the wrappers of other libraries around a `DataLoader`."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, Protocol, TypeGuard

from torch.utils.data import DataLoader, Dataset, IterableDataset

from instahide.data.items import MapDataset
from instahide.errors import IntegrationError
from instahide.integrations.dataloader.timm_prefetcher import (
    is_prefetcher,
    normalizing,
    without_normalization,
)
from instahide.training.data.encoded_loader import EncodedLoader

#: The attribute with the wrapped loader, by the module that defines the wrapper.
_INNER = {
    "accelerate.data_loader": "base_dataloader",
    "lightning.fabric.wrappers": "_dataloader",
    "lightning_fabric.wrappers": "_dataloader",
    "ray.train.torch.train_loop_utils": "_dataloader",
    "timm.data.loader": "loader",
}


class BatchSource(Protocol):
    """What every loader is: an iterable of a known number of batches."""

    def __iter__(self) -> Iterator[object]: ...

    def __len__(self) -> int: ...


def inner_loader(loader: object) -> object:
    """The loader that ``loader`` wraps, if it is of a known library; else ``loader``."""
    name = _inner_name(loader)
    return loader if name is None else inner_loader(_inner(loader, name))


def around(loader: BatchSource, inner: BatchSource) -> BatchSource:
    """A copy of ``loader`` that wraps ``inner`` in place of its `inner_loader`.

    The library's handling of devices, epochs and gradient accumulation is unchanged.
    """
    name = _inner_name(loader)
    if name is None:
        return inner
    replaced = _inner(loader, name)
    copy = object.__new__(type(loader))
    for key, value in vars(loader).items():
        # Some of these loaders copy the attributes of the inner one, its data set among them.
        if vars(replaced).get(key, copy) is not value:
            vars(copy)[key] = value
    vars(copy)[name] = around(replaced, inner)
    return without_normalization(copy) if is_prefetcher(copy) else copy


def _inner(loader: object, name: str) -> Any:
    """The loader that ``loader`` wraps; that of timm's prefetcher gives normalized images."""
    inner = getattr(loader, name)
    return normalizing(loader, inner) if is_prefetcher(loader) else inner


def _inner_name(loader: object) -> str | None:
    # `type`, since Accelerate's loaders give the class of the inner loader as their `__class__`.
    iterate = getattr(type(loader), "__iter__", None)
    found = _INNER.get(getattr(iterate, "__module__", ""))
    # timm's module also has loaders that wrap none.
    return found if found is not None and hasattr(loader, found) else None


def require_wrappable(loader: object) -> DataLoader[object]:
    """``loader``, if it fetches items by number, in batches that are known in advance.

    Raises:
        IntegrationError: it does not; the message says what to change.
    """
    if isinstance(loader, EncodedLoader):
        raise IntegrationError("This loader gives encodings already.", "Use it directly.")
    if not isinstance(loader, DataLoader):
        raise IntegrationError(
            f"The loader is a {type(loader).__name__}, not a PyTorch DataLoader.",
            "Give the DataLoader itself, or use an `EncodedLoader` of your images.",
        )
    if _iterates_differently(loader):
        raise IntegrationError(
            f"The loader, a {type(loader).__name__}, iterates in a way of its own, which cannot be "
            "wrapped.",
            "Give a plain DataLoader with the same data set, sampler and collate function.",
        )
    if isinstance(loader.dataset, IterableDataset):
        raise IntegrationError(
            "The data set gives its items in a stream, not by number, so that partners cannot be "
            "drawn evenly from all of them, nor exposure be counted.",
            "Use a map-style data set, which has __len__ and __getitem__: list(dataset), or of a "
            "long stream one list of items after another, counted in one ledger.",
        )
    if loader.batch_sampler is None:
        raise IntegrationError(
            "The loader has batch_size=None: it makes no batches that partners can be added to.",
            "Give it a batch size, or a sampler that gives lists of numbers as batch_sampler=.",
        )
    if not _has_length(loader.batch_sampler):
        raise IntegrationError(
            "The sampler has no length, so the images of an epoch are unknown.",
            "Use a finite sampler with a __len__, for example RandomSampler(num_samples=...).",
        )
    map_dataset(loader.dataset)
    return loader


def map_dataset(dataset: Dataset[object]) -> MapDataset:
    """``dataset``, if it has a length.

    Raises:
        IntegrationError: it has none.
    """
    if not _is_map_dataset(dataset):
        raise IntegrationError(
            "The data set has no length, so exposure cannot be counted.",
            "Add a __len__ method to it.",
        )
    return dataset


def _iterates_differently(loader: DataLoader[object]) -> bool:
    names = ("__iter__", "_get_iterator", "_index_sampler")
    changed = [getattr(type(loader), name) is not getattr(DataLoader, name) for name in names]
    return any(changed) or "_get_iterator" in vars(loader)


def _is_map_dataset(dataset: Dataset[object]) -> TypeGuard[MapDataset]:
    return _has_length(dataset)


def _has_length(thing: object) -> bool:
    # A BatchSampler has the method whether or not its sampler does.
    try:
        return isinstance(thing, Sized) and len(thing) >= 0
    except (TypeError, NotImplementedError, AttributeError):
        return False

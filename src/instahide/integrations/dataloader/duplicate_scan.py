"""Detection of items of a wrapped loader that show the same picture, before the first mix.

Each item that an epoch needs is fetched once more, in the user's workers, when it is first needed.
Its image is hashed after the user's transform and collate function. Before each item all random
generators are set to the same state, so that random transforms treat equal pictures equally.

A data set with a method `set_epoch` may show other pictures under the same numbers afterwards. Its
items are scanned again before each epoch, and must be the same. The `set_epoch` of a sampler does
not change items.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from instahide.data.duplicates.content_hash import Hashes, content_hashes, denormalize_to_uint8
from instahide.data.duplicates.repeatable_transforms import RepeatableTransforms
from instahide.errors import InstaHideError, IntegrationError
from instahide.integrations.dataloader.batch_fields import (
    Leaf,
    Path,
    image_leaves,
    with_channel,
)
from instahide.integrations.dataloader.supported_loaders import map_dataset
from instahide.integrations.dataloader.workers import Collate, UserDataset, WorkerInit

#: Items that a worker fetches at a time.
CHUNK = 64

#: ``mean`` and ``std`` per channel, of pixel / 255, that images were normalized by.
Normalized = tuple[tuple[float, ...], tuple[float, ...]]


class ItemScan:
    """The hashes of those items of a loader that were scanned.

    Args:
        loader: the user's loader.
        image: path of the images in a batch; by default it is found in each batch.
        normalized: mean and std of the images' normalization, to compare them with public pixels.

    Attributes:
        hashes: (N, 2, 2) of the values of each item's image, and of the nearest 8-bit pixels; zeros
            for items not yet seen, and for pixels where ``normalized`` is not known.
        changing: whether scanned items change from one fetch to the next.
    """

    def __init__(
        self, loader: DataLoader[object], image: Path | None, normalized: Normalized | None
    ) -> None:
        count = len(map_dataset(loader.dataset))
        self.hashes: Hashes = np.zeros((count, 2, 2), np.uint64)
        self.changing = False
        self._seen = np.zeros(count, bool)
        self._by_epoch = _has_epochs(loader.dataset)
        self._loader = loader
        self._image = image
        self._normalized = normalized

    def begin_epoch(self, items: NDArray[np.int64]) -> None:
        """As `see`, before an epoch with ``items`` (n,); also check those that were scanned before.

        Raises:
            IntegrationError: the data set has `set_epoch`, and its items are not known to be those
                that were counted under the same numbers.
            Exception: the data set raises it.
        """
        if self._by_epoch and self._seen.any():
            again = self.repeated()
            if self.changing or again.changing or not np.array_equal(again.hashes, self.hashes):
                raise _other_items(changing=self.changing or again.changing)
        self.see(items)

    def see(self, items: NDArray[np.int64]) -> None:
        """Fetch and hash those of ``items`` (n,) that were not scanned before.

        Raises:
            Exception: the data set raises it.
        """
        new = items[~self._seen[items]]
        if not len(new):
            return
        stacked = self._stacked(new)
        if stacked is not None:
            self.hashes[new] = _hashed(stacked, self._normalized)
        else:
            changing = False
            for chunk in self._fetched(new):
                self.hashes[chunk.numbers] = chunk.hashes
                changing |= not chunk.repeatable
            self.changing |= changing
            if changing:
                warnings.warn(
                    "The items of the data set change from one fetch to the next, by a random "
                    "generator that is not known: items that show the same picture cannot be "
                    "found, and may be mixed with each other. Draw from the generators of "
                    "`random`, NumPy or PyTorch, or from one in an attribute of the transform.",
                    stacklevel=2,
                )
        self._seen[new] = True

    def repeated(self) -> ItemScan:
        """A new scan of the items that this one has seen.

        Raises:
            Exception: the data set raises it.
        """
        scan = ItemScan(self._loader, self._image, self._normalized)
        scan.see(np.flatnonzero(self._seen))
        return scan

    def _stacked(self, items: NDArray[np.int64]) -> NDArray[np.generic] | None:
        """The images of ``items`` if the data set is a `TensorDataset`; else None."""
        dataset = self._loader.dataset
        while type(dataset) is Subset:
            items, dataset = np.asarray(dataset.indices)[items], dataset.dataset
        if type(dataset) is not TensorDataset or self._loader.collate_fn is not default_collate:
            return None
        tensors = image_leaves(dataset.tensors, self._image, len(dataset))
        if len(tensors) != 1 or not isinstance(tensors[0], Tensor):
            return None
        tensor = tensors[0]
        usable = tensor.device.type == "cpu" and tensor.ndim in (3, 4, 5)
        return _array(tensor[torch.from_numpy(items)]) if usable else None

    def _fetched(self, items: NDArray[np.int64]) -> Iterator[_Chunk]:
        loader = self._loader
        chunks = [items[start : start + CHUNK].tolist() for start in range(0, len(items), CHUNK)]
        return iter(
            DataLoader(
                _ScannedItems(loader.dataset, loader.collate_fn, self._image, self._normalized),
                batch_sampler=chunks,
                num_workers=loader.num_workers,
                collate_fn=_single,
                timeout=loader.timeout,
                worker_init_fn=WorkerInit(loader.worker_init_fn),
                multiprocessing_context=loader.multiprocessing_context,
                # A separate generator, so that the state of the user's sampler does not change.
                generator=torch.Generator(),
                prefetch_factor=loader.prefetch_factor,
            )
        )


class _Chunk(NamedTuple):
    """Item numbers, their hashes, and whether two fetches of the first one were equal."""

    numbers: list[int]
    hashes: Hashes
    repeatable: bool


class _ScannedItems(UserDataset[_Chunk]):
    """A data set of the hashes of the images of the user's data set."""

    def __init__(
        self,
        dataset: Dataset[object],
        collate: Collate,
        image: Path | None,
        normalized: Normalized | None,
    ) -> None:
        super().__init__(dataset)
        self._collate = collate
        self._image = image
        self._normalized = normalized
        #: Made in the process that uses it.
        self._generators: RepeatableTransforms | None = None

    def __getitems__(self, indices: list[int]) -> list[_Chunk]:
        if self._generators is None:
            self._generators = RepeatableTransforms(self.dataset, self._collate)
        with self._generators as generators:
            again = self._image_of(indices[0], generators)
            images = [self._image_of(index, generators) for index in indices]
        return [_Chunk(indices, self._hashes(images), _alike(again, images[0]))]

    def _hashes(self, images: list[NDArray[np.generic] | None]) -> Hashes:
        """(n, 2, 2) of ``images``, each (1, C, H, W); zeros for one that is not known."""
        found = np.zeros((len(images), 2, 2), np.uint64)
        by_shape: dict[tuple[int, ...], dict[int, NDArray[np.generic]]] = {}
        for row, image in enumerate(images):
            if image is not None:
                by_shape.setdefault(image.shape, {})[row] = image
        for rows in by_shape.values():
            found[list(rows)] = _hashed(np.concatenate(list(rows.values())), self._normalized)
        return found

    def _image_of(self, index: int, generators: RepeatableTransforms) -> NDArray[np.generic] | None:
        """(1, C, H, W) of one item; None if its image is not known."""
        generators.again()
        images = self._images(self.fetch([index]).items)
        # Unusable images are an error when they are mixed.
        usable = len(images) == 1 and len(images[0]) == 1 and not _is_meta(images[0])
        return _array(images[0]) if usable else None

    def _images(self, items: object) -> list[Leaf]:
        """The fields that may be the image in a batch of one item."""
        try:
            return image_leaves(self._collate(items), self._image, 1)
        except InstaHideError:
            raise
        except Exception:  # the user's code: some collates want an even number, to mix images
            pair = [items[0], items[0]] if isinstance(items, list) else items
            return [leaf[:1] for leaf in image_leaves(self._collate(pair), self._image, 2)]


def _has_epochs(dataset: object, depth: int = 10) -> bool:
    """Whether ``dataset``, or a data set that it is made of, has a method `set_epoch`."""
    if callable(getattr(dataset, "set_epoch", None)):
        return True
    parts = getattr(dataset, "datasets", ())
    held = parts.values() if isinstance(parts, Mapping) else parts
    inner = [getattr(dataset, "dataset", None), *(held if isinstance(held, Iterable) else ())]
    return depth > 0 and any(_has_epochs(part, depth - 1) for part in inner if part is not None)


def _other_items(*, changing: bool) -> IntegrationError:
    items = (
        "its items change from one fetch to the next, so it is unknown whether they are"
        if changing
        else "its items are not"
    )
    return IntegrationError(
        f"The data set has a method `set_epoch`, and {items} the same images as in the epoch "
        "before. Exposure would be counted for other images than those that are encrypted.",
        "Choose and shuffle items by a sampler, and draw random transforms from the generators of "
        "`random`, NumPy or PyTorch, or from one in an attribute of the transform.",
    )


def _alike(one: NDArray[np.generic] | None, other: NDArray[np.generic] | None) -> bool:
    """Whether two fetches of an image are equal, up to the rounding of a collate function."""
    if one is None or other is None:
        return True
    return one.shape == other.shape and np.allclose(
        one, other, rtol=1e-5, atol=1e-6, equal_nan=True
    )


def _hashed(images: NDArray[np.generic], normalized: Normalized | None) -> Hashes:
    """(n, 2, 2) of ``images``: of their values, and of the nearest pixels if known."""
    values = np.ascontiguousarray(with_channel(images), np.float32)
    exact = content_hashes(values)
    pixels = np.zeros_like(exact)
    if normalized is not None:
        pixels = content_hashes(denormalize_to_uint8(values, *normalized))
    return np.stack([exact, pixels], axis=1)


def _is_meta(leaf: Leaf) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_meta


def _array(leaf: Leaf) -> NDArray[np.generic]:
    if isinstance(leaf, Tensor):
        leaf = leaf.detach().cpu()
        leaf = (leaf.float() if leaf.dtype == torch.bfloat16 else leaf).numpy()
    return np.asarray(leaf)


def _single(chunks: list[_Chunk]) -> _Chunk:
    return chunks[0]

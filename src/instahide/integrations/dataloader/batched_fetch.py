"""A check of data sets that make a batch in one call, by ``__getitems__``.

A transform of a whole batch, as of `datasets.Dataset.set_transform`, may mix its images. Single
items are therefore fetched again: an image that changes with the other items of its batch is a mix.
Random transforms get the same random numbers for each fetch.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Subset

from instahide.data.duplicates.repeatable_transforms import RepeatableTransforms

#: Largest rounding difference between a batch and a single image, relative to the largest value.
ROUNDING = 1e-5
#: How often an image must change with the other items of its batch, in case that it is random.
REPEATS = 6

#: Makes the images (n, ...) of a batch of n items; None if they cannot be found.
ImagesOf: TypeAlias = Callable[[object, int], Tensor | None]


class GeneratorStates(NamedTuple):
    """The states of the user's global random generators."""

    torch: Tensor
    numpy: dict[str, object] | tuple[str, NDArray[np.uint32], int, int, float]
    python: tuple[object, ...]

    @classmethod
    def now(cls) -> GeneratorStates:
        """The present states."""
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate())

    def restore(self) -> None:
        """Set the generators to these states."""
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def same(self, other: GeneratorStates) -> bool:
        """Whether ``other`` has equal states."""
        if not torch.equal(self.torch, other.torch) or self.python != other.python:
            return False
        return pickle.dumps(self.numpy) == pickle.dumps(other.numpy)


class BatchedFetch(NamedTuple):
    """One call of a data set that fetched the items ``indices``.

    ``before``: the states of the global generators before it; ``own``: resets those of the data
    set's transforms, too.
    """

    fetch: Callable[[list[int]], object]
    indices: list[int]
    before: GeneratorStates
    own: RepeatableTransforms


class BatchedFetchCheck:
    """Finds an image that a data set made of several items.

    Args:
        images_of: the user's collate function, and the images of the batch that it makes.
    """

    def __init__(self, images_of: ImagesOf) -> None:
        self._images_of = images_of
        self._batches = 0

    def mixed_row(
        self, fetched: BatchedFetch, rows: Tensor, collating: GeneratorStates
    ) -> int | None:
        """A row of ``rows`` that is known to be a mix; None if none of the two checked rows is.

        The two are the first, which gets the same random numbers alone as in its batch, and another
        one, which changes from batch to batch.

        Args:
            fetched: how the items of the batch were fetched.
            rows: (n, ...) the images of the batch.
            collating: the states of the global generators before the batch was collated.
        """
        self._batches += 1
        if len(rows) < 2:
            return None
        with fetched.own:
            for place in (0, 1 + self._batches % (len(rows) - 1)):
                if self._is_mix(fetched, place, rows[place], collating):
                    return place
        return None

    def _is_mix(
        self, fetched: BatchedFetch, place: int, row: Tensor, collating: GeneratorStates
    ) -> bool:
        alone = self._fetched(fetched, fetched.indices[place : place + 1], collating)
        if alone is not None and is_near(alone.images[0], row):
            return False
        # In later rows random transforms have other random numbers. The slower test that they need
        # is made in the batches 1, 2, 4, 8 and so on.
        if place and self._batches & (self._batches - 1):
            return False
        return self._changes_with_others(fetched, place, collating)

    def _changes_with_others(
        self, fetched: BatchedFetch, place: int, collating: GeneratorStates
    ) -> bool:
        """Whether an image changes if copies of its item replace the other items of its batch."""
        items = fetched.indices
        first: Tensor | None = None
        for _ in range(REPEATS):
            among_others = self._fetched(fetched, items, collating)
            copies = self._fetched(fetched, [items[place]] * len(items), collating)
            if among_others is None or copies is None or not among_others.comparable(copies):
                return False
            if is_near(among_others.images[place], copies.images[place]):
                return False
            first = copies.images.clone() if first is None else first
            if not is_near(copies.images, first):
                # The transform is random, by a generator that is not known.
                return False
        return True

    def _fetched(
        self, fetched: BatchedFetch, indices: list[int], collating: GeneratorStates
    ) -> _Refetched | None:
        """The images of a new batch of ``indices``, made with the same random numbers."""
        fetched.own.again()
        fetched.before.restore()
        try:
            items = fetched.fetch(list(indices))
            after = GeneratorStates.now()
            collating.restore()
            images = self._images_of(items, len(indices))
        except Exception:  # the user's code, which may need an even number or different items
            return None
        return None if images is None else _Refetched(images, after)


class _Refetched(NamedTuple):
    """Images of a batch, and the states of the global generators after its items were fetched."""

    images: Tensor
    after: GeneratorStates

    def comparable(self, other: _Refetched) -> bool:
        """Whether both have the same shape and used as many random numbers.

        How many a transform draws for one item may depend on the item.
        """
        return self.images.shape == other.images.shape and self.after.same(other.after)


def gives_batches(dataset: Dataset[object]) -> bool:
    """Whether ``dataset`` makes several items in one call; a `Subset` only passes it on."""
    while isinstance(dataset, Subset) and type(dataset).__getitems__ is Subset.__getitems__:
        dataset = dataset.dataset
    return callable(getattr(dataset, "__getitems__", None))


def is_near(image: Tensor, row: Tensor) -> bool:
    """Whether ``image`` is ``row`` up to the rounding of a computation on a batch."""
    if image.shape != row.shape:
        return False
    near = ROUNDING * float(row.abs().nan_to_num(0, 0, 0).max()) if row.numel() else 0.0
    return torch.allclose(image.to(row.dtype), row, rtol=0, atol=near, equal_nan=True)

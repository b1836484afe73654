"""The readable attributes of a wrapped loader, and stand-ins for its parts: no plain items.

Frameworks build new loaders from `dataset`, `sampler`, `batch_sampler` and `collate_fn`, and read
private attributes too. The stand-ins have lengths, class names and item numbers, and raise an error
when an item is requested. The real objects are in `Hidden` objects, which have no attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any, Generic, NoReturn, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import DataLoader, Dataset

from instahide.data.items import MapDataset
from instahide.errors import IntegrationError
from instahide.integrations.dataloader.supported_loaders import map_dataset

T_co = TypeVar("T_co", covariant=True)

_VALUES: WeakKeyDictionary[Hidden[object], Any] = WeakKeyDictionary()

#: Types of readable sampler attributes: none of them leads to an item.
_PLAIN_TYPES = (bool, int, float, str, type(None))
#: Types of readable attributes of a loader, likewise.
_SETTINGS = (*_PLAIN_TYPES, torch.device, torch.Generator, BaseContext)


class Hidden(Generic[T_co]):
    """Holds a value that only `reveal` returns. A copy holds a copy of the value."""

    __slots__ = ("__weakref__",)

    def __init__(self, value: T_co) -> None:
        _VALUES[self] = value

    def __reduce__(self) -> tuple[type[Hidden[T_co]], tuple[T_co]]:
        return Hidden, (reveal(self),)


def reveal(hidden: Hidden[T_co]) -> T_co:
    """The value that ``hidden`` holds."""
    value: T_co = _VALUES[hidden]
    return value


class HiddenIterator(Iterator[T_co]):
    """An iterator over ``iterator`` that does not expose it."""

    def __init__(self, iterator: Iterator[T_co]) -> None:
        self._iterator = Hidden(iterator)

    def __next__(self) -> T_co:
        return next(reveal(self._iterator))


class HiddenDataset(Dataset[object]):
    """Stand-in for the data set of a wrapped loader, with length and class names but no items.

    Args:
        dataset: the data set.
        classes: names or number of its classes; None if unknown.

    Attributes:
        classes: names of the classes, if they are known.
        num_classes: number of classes; None if unknown.
    """

    def __init__(self, dataset: MapDataset, classes: int | Sequence[str] | None) -> None:
        self._items = len(dataset)
        names = None if classes is None or isinstance(classes, int) else tuple(classes)
        self.num_classes = classes if names is None else len(names)
        if names is not None:
            self.classes = names
        if hasattr(dataset, "set_epoch"):
            self.set_epoch = partial(set_epoch, Hidden(dataset))

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, index: object) -> NoReturn:
        refuse_items()

    def __getitems__(self, indices: object) -> NoReturn:
        """Raise, since plain items are not available.

        Raises:
            IntegrationError: always.
        """
        refuse_items()

    def __iter__(self) -> NoReturn:
        refuse_items()

    def __repr__(self) -> str:
        return f"HiddenDataset({self._items} items)"


class HiddenSampler:
    """Stand-in for a sampler or batch sampler: it yields item numbers and accepts `set_epoch`.

    It does not expose a data set that the sampler may hold.
    """

    def __init__(self, sampler: Iterable[object]) -> None:
        vars(self)["_sampler"] = Hidden(sampler)

    def __iter__(self) -> Iterator[object]:
        return HiddenIterator(iter(reveal(self._sampler)))

    def __len__(self) -> int:
        return len(reveal(self._sampler))

    def __getattr__(self, name: str) -> Any:
        sampler = None if name.startswith("_") else reveal(self._sampler)
        if hasattr(sampler, name):
            value = getattr(sampler, name)
            if name == "set_epoch":
                return partial(set_epoch, self._sampler)
            if name in ("sampler", "batch_sampler"):
                return HiddenSampler(value)
            if isinstance(value, _PLAIN_TYPES):
                return value
        raise AttributeError(f"The sampler of a wrapped loader does not show {name!r}.")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        refuse_setting(name)

    def __repr__(self) -> str:
        return f"HiddenSampler({type(reveal(self._sampler)).__name__})"


def hidden_function(*arguments: object) -> NoReturn:
    """Stand-in for a function of a wrapped loader, such as its collate function.

    Raises:
        IntegrationError: always.
    """
    refuse_items()


def refuse_items() -> NoReturn:
    """Raise, since plain items are not available.

    Raises:
        IntegrationError: always.
    """
    raise IntegrationError(
        "Plain items were asked for through a loader that `encode_loader` has wrapped, as a "
        "library does that builds a new loader from its parts.",
        "Let that library prepare the plain loader first (`loader.unwrapped` is it), and pass its "
        "result to `encode_loader`. Do so with a loader that skips batches too, or skip them with "
        "itertools.islice(loader, n, None). A Hugging Face Trainer resumes in the middle of an "
        "epoch with ignore_data_skip=True.",
    )


def refuse_setting(name: str) -> NoReturn:
    """Raise, since attributes of a wrapped loader cannot be set.

    Raises:
        IntegrationError: always.
    """
    raise IntegrationError(
        f"{name!r} of a wrapped loader cannot be set: its batches would not change.",
        "Set it on the plain DataLoader, and pass that to `encode_loader`.",
    )


def set_epoch(hidden: Hidden[Any], epoch: int) -> None:
    """Call `set_epoch` of the hidden object."""
    reveal(hidden).set_epoch(epoch)


class LoaderView:
    """An object with the attributes of a `DataLoader` that do not lead to a plain item.

    It is not a subclass of `DataLoader`, because frameworks rebuild a `DataLoader` from its parts.

    Args:
        loader: the plain loader.
        classes: names or number of its classes; None if unknown.
        shown: the loader whose settings are readable; ``loader`` by default.
    """

    def __init__(
        self,
        loader: DataLoader[object],
        classes: int | Sequence[str] | None = None,
        shown: object = None,
    ) -> None:
        self._plain = Hidden(loader)
        self._shown = Hidden(loader if shown is None else shown)
        self._dataset = HiddenDataset(map_dataset(loader.dataset), classes)

    @property
    def dataset(self) -> HiddenDataset:
        """A stand-in for the data set, with length and class names but no items."""
        return self._dataset

    @property
    def sampler(self) -> HiddenSampler:
        """A sampler of item numbers; it accepts `set_epoch` if the plain loader's does."""
        return HiddenSampler(reveal(self._plain).sampler)

    @property
    def batch_sampler(self) -> HiddenSampler:
        """A sampler of lists of item numbers."""
        return HiddenSampler(reveal(self._plain).batch_sampler or ())

    @property
    def collate_fn(self) -> Callable[..., NoReturn]:
        """A function that raises."""
        return hidden_function

    @property
    def worker_init_fn(self) -> Callable[..., NoReturn] | None:
        """None, or a function that raises if there is one; frameworks may set it."""
        return None if reveal(self._plain).worker_init_fn is None else hidden_function

    @worker_init_fn.setter
    def worker_init_fn(self, function: Callable[[int], None] | None) -> None:
        reveal(self._plain).worker_init_fn = function

    def __getattr__(self, name: str) -> Any:
        loader = None if name.startswith("_") else reveal(self._shown)
        if hasattr(loader, name):
            value = getattr(loader, name)
            if name == "set_epoch":
                return partial(set_epoch, self._shown)
            if isinstance(value, _SETTINGS):
                return value
        raise AttributeError(f"A wrapped loader, {type(self).__name__}, does not show {name!r}.")

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name != "worker_init_fn":
            refuse_setting(name)
        super().__setattr__(name, value)

"""What a wrapped loader shows in place of the parts that a plain loader could be built from.

Frameworks build loaders anew from `dataset`, `sampler`, `batch_sampler` and `collate_fn`, and look
at private attributes too. The objects here give lengths, class names and item numbers. Asked for an
item they raise an error. What they stand for lies in `Hidden` objects, which have no attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from torch.utils.data import Dataset

from instahide.errors import IntegrationError

T_co = TypeVar("T_co", covariant=True)

_VALUES: WeakKeyDictionary[Hidden[Any], Any] = WeakKeyDictionary()

#: Types of sampler attributes that are shown: none of them leads to an item.
_PLAIN_TYPES = (bool, int, float, str, type(None))


class Hidden(Generic[T_co]):
    """Holds a value that no attribute leads to; `reveal` gives it. Copies hold a copy."""

    __slots__ = ("__weakref__",)

    def __init__(self, value: T_co) -> None:
        _VALUES[self] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Hidden, (reveal(self),)


def reveal(hidden: Hidden[T_co]) -> T_co:
    """The value that ``hidden`` holds."""
    value: T_co = _VALUES[hidden]
    return value


class HiddenIterator(Iterator[Any]):
    """Gives what ``iterator`` gives, and shows nothing of it."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = Hidden(iterator)

    def __next__(self) -> Any:
        return next(reveal(self._iterator))


class HiddenDataset(Dataset[Any]):
    """Stands for the data set of a wrapped loader: it has a length and class names, but no items.

    Args:
        dataset: the data set.
        classes: the names of its classes, or how many there are, if that is known.

    Attributes:
        classes: the names of the classes, where they are known.
        num_classes: how many there are; None if it is not known.
    """

    def __init__(self, dataset: Any, classes: int | Sequence[str] | None) -> None:
        self._items = len(dataset)
        names = None if classes is None or isinstance(classes, int) else tuple(classes)
        self.num_classes = classes if names is None else len(names)
        if names is not None:
            self.classes = names
        if hasattr(dataset, "set_epoch"):
            self.set_epoch = partial(set_epoch, Hidden(dataset))

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, index: Any) -> NoReturn:
        refuse_items()

    def __getitems__(self, indices: Any) -> NoReturn:
        """Refuse.

        Raises:
            InstaHideError: always.
        """
        refuse_items()

    def __iter__(self) -> NoReturn:
        refuse_items()

    def __repr__(self) -> str:
        return f"WithheldDataset({self._items} items)"


class HiddenSampler:
    """Stands for a sampler or batch sampler: it gives item numbers, and takes `set_epoch`.

    The data set that a sampler may hold is not shown.
    """

    def __init__(self, sampler: Any) -> None:
        vars(self)["_sampler"] = Hidden(sampler)

    def __iter__(self) -> Iterator[Any]:
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

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        refuse_setting(name)

    def __repr__(self) -> str:
        return f"WithheldSampler({type(reveal(self._sampler)).__name__})"


def hidden_function(*arguments: Any) -> NoReturn:
    """Stands for a function of a wrapped loader, such as its collate function.

    Raises:
        InstaHideError: always.
    """
    refuse_items()


def refuse_items() -> NoReturn:
    """Refuse to give plain items.

    Raises:
        IntegrationError: always.
    """
    raise IntegrationError(
        "Plain items were asked for through a loader that `encode_loader` has wrapped, as a "
        "library does that builds a loader anew from its parts.",
        "Let that library prepare the plain loader first (`loader.unwrapped` is it), and pass its "
        "result to `encode_loader`. Do so with a loader that skips batches too, or skip them with "
        "itertools.islice(loader, n, None). A Hugging Face Trainer resumes in the middle of an "
        "epoch with ignore_data_skip=True.",
    )


def refuse_setting(name: str) -> NoReturn:
    """Refuse to change a wrapped loader.

    Raises:
        IntegrationError: always.
    """
    raise IntegrationError(
        f"{name!r} of a wrapped loader cannot be set: its batches would not change.",
        "Set it on the plain DataLoader, and pass that to `encode_loader`.",
    )


def set_epoch(hidden: Hidden[Any], epoch: int) -> None:
    """Tell the object behind ``hidden`` that an epoch begins."""
    reveal(hidden).set_epoch(epoch)

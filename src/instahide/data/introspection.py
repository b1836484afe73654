"""The classes that a data set or its user declares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set, Sized
from typing import TypeGuard

import numpy as np

from instahide.data.items import LABEL_KEYS, class_number
from instahide.data.labels import MAX_CLASSES
from instahide.data.splits import class_count
from instahide.errors import DataError


def class_names(dataset: object) -> tuple[str, ...]:
    """The class names that ``dataset`` declares, or ().

    Raises:
        InstaHideError: its list of classes is ambiguous.
    """
    stated = _stated_classes(dataset)
    return stated if isinstance(stated, tuple) else ()


def num_classes(dataset: object) -> int | None:
    """The number of classes that ``dataset`` declares or that its labels have; None if unknown.

    No item is fetched.

    Raises:
        InstaHideError: its list of classes is ambiguous, or its labels are not class numbers.
    """
    stated = _stated_classes(dataset)
    if stated is not None:
        return len(stated) if isinstance(stated, tuple) else stated
    for part in _whole(dataset):
        targets = getattr(part, "targets", None)
        if isinstance(targets, Iterable) and not isinstance(targets, (str, Mapping)):
            numbers = [class_number(target, index) for index, target in enumerate(targets)]
            return class_count(np.asarray(numbers))
    return None


def _stated_classes(dataset: object) -> tuple[str, ...] | int | None:
    for part in _whole(dataset):
        features = getattr(part, "features", None)
        fields = features if isinstance(features, Mapping) else {}
        label = next((fields[key] for key in LABEL_KEYS if key in fields), None)
        items = len(part) if isinstance(part, Sized) else None
        for classes in (getattr(part, "classes", None), getattr(label, "names", None)):
            if stated := read_classes(classes, items):
                return stated
    return None


def _whole(dataset: object) -> Iterator[object]:
    """The data set, then the one that it wraps, as a torch Subset does, and so on."""
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)


def read_classes(classes: object, items: int | None = None) -> tuple[str, ...] | int | None:
    """The class names by number, or the number of classes; None if ``classes`` is neither.

    Names may be a sequence, an array, a tensor, or a mapping between names and numbers. A list with
    one class for each item, as some data sets have, is neither.

    Args:
        classes: an argument of the user, or an attribute of a data set.
        items: number of items of that data set.

    Raises:
        DataError: ``classes`` is ambiguous, or there are too many.
    """
    if classes is None or callable(classes):
        return None
    if isinstance(classes, Mapping):
        classes = _by_number(classes)
    if isinstance(classes, (str, bytes, bool, Set)) or not _listed(classes):
        return _count(classes)
    names = _names([_plain(value) for value in classes])
    if len(set(names)) == len(names) <= MAX_CLASSES:
        return names
    if len(names) == items:
        return None
    if len(set(names)) == len(names):
        raise _unclear(f"a list of {len(names)} names")
    twice = Counter(names).most_common(1)[0][0]
    raise DataError(
        f"The list of classes names {twice!r} more than once.",
        "Name every class once, in the order of their numbers.",
    )


def _listed(classes: object) -> TypeGuard[Iterable[object]]:
    # A tensor or an array of no dimension looks iterable, but is not.
    return isinstance(classes, Iterable) and getattr(classes, "ndim", 1) > 0


def _count(classes: object) -> int:
    value = _plain(classes)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _unclear(f"a {type(classes).__name__}")
    if not 1 <= value <= MAX_CLASSES:
        raise DataError(
            f"The number of classes is {value}.", f"Give a number from 1 to {MAX_CLASSES}."
        )
    return int(value)


def _by_number(classes: Mapping[object, object]) -> list[object]:
    """The names in a mapping from names to numbers 0, 1, ..., or from numbers to names."""
    names = {_plain(key): value for key, value in classes.items()}
    if not all(isinstance(number, int) for number in names):
        numbers = [_plain(value) for value in classes.values()]
        if not all(isinstance(number, int) for number in numbers):
            raise _unclear("a mapping without numbers")
        names = dict(zip(numbers, classes, strict=True))
    if set(names) != set(range(len(classes))):
        raise _unclear("a mapping that does not number its classes from 0 without gaps")
    return [names[number] for number in range(len(names))]


def _names(values: list[object]) -> tuple[str, ...]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, bytes, int)):
            raise _unclear(f"a list with a {type(value).__name__} in it")
    return tuple(
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for value in values
    )


def _plain(value: object) -> object:
    """``value``, or a Python number if it is a scalar of NumPy or PyTorch."""
    if isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "ndim", 1) == 0):
        return value.item()
    return value


def _unclear(what: str) -> DataError:
    return DataError(
        f"The classes are {what}, which does not give their names.",
        "Give classes= as a list of names, in the order of their numbers.",
    )

"""The classes that a data set declares in its attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized

import numpy as np

from instahide.data.declared_classes import read_classes
from instahide.data.items import LABEL_KEYS, class_number
from instahide.data.splits import class_count


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

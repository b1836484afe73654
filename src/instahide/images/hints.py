"""Which classes a data set says that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from instahide.images.items import LABEL_KEYS, class_number
from instahide.images.splits import class_count


def class_names(dataset: object) -> tuple[str, ...]:
    """The names of its classes, or none."""
    for part in _whole(dataset):
        classes = getattr(part, "classes", None)
        features = getattr(part, "features", None)
        if not classes and isinstance(features, Mapping):
            known = [features[key] for key in LABEL_KEYS if key in features]
            classes = getattr(known[0], "names", None) if known else None
        if classes:
            return tuple(str(name) for name in classes)
    return ()


def classes_known(dataset: object) -> int | None:
    """How many classes it has, by their names or its list of all labels; no item is fetched."""
    if names := class_names(dataset):
        return len(names)
    for part in _whole(dataset):
        targets = getattr(part, "targets", None)
        if targets is not None:
            numbers = [class_number(target, index) for index, target in enumerate(targets)]
            return class_count(np.asarray(numbers))
    return None


def _whole(dataset: object) -> Iterator[object]:
    """The data set, then the one that it is a part of, as a torch Subset is, and so on."""
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)

"""Labels of several findings as classes, which is what attacks take labels for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instahide.data import ImageTable


def findings_as_classes(*tables: ImageTable) -> list[ImageTable]:
    """``tables`` of images with findings, with a class for each combination of findings in them.

    A mix of these classes reveals at least as much as a mix of the findings: the findings of a mix
    are a linear function of its classes. Tables with other labels stay as they are.

    Args:
        tables: tables with the same columns. A finding that is not known is a state of its own.

    Examples:
        >>> import numpy as np
        >>> from instahide import ImageTable
        >>> from instahide.audit.label_classes import findings_as_classes
        >>> findings = np.array([[1, 0], [0, 0], [1, 0]], np.float32)
        >>> pixels = np.zeros((3, 1, 4, 4), np.uint8)
        >>> images = ImageTable.from_arrays(pixels, findings, ("a", "b"), task="multi-label")
        >>> (classed,) = findings_as_classes(images)
        >>> classed.classes, classed.labels.tolist()
        (('none', 'a'), [1, 0, 1])
    """
    if any(table.task != "multi-label" for table in tables):
        return list(tables)
    # NaN is not equal to itself.
    rows = np.concatenate([np.nan_to_num(table.labels, nan=-1.0) for table in tables])
    found, numbers = np.unique(rows, axis=0, return_inverse=True)
    names = [_name(row.tolist(), tables[0].classes) for row in found]
    # Images of a single combination are of one of two classes as well.
    names += ["no image"] if len(names) == 1 else []
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names)]
    ends = np.cumsum([len(table) for table in tables])[:-1]
    return [
        replace(table, labels=part.astype(np.int64), classes=tuple(names), task="single-label")
        for table, part in zip(tables, np.split(numbers.reshape(-1), ends), strict=True)
    ]


def _name(row: list[float], findings: tuple[str, ...]) -> str:
    parts = [
        name if value == 1 else f"{name} {'unknown' if value < 0 else format(value, 'g')}"
        for name, value in zip(findings, row, strict=True)
        if value != 0
    ]
    return ", ".join(parts) or "none"

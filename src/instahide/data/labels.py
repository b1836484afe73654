"""Labels of images: class numbers, several findings for each image, or measured values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from instahide.errors import DataError

#: What the labels of a table are. ``single-label``: one class for each image. ``multi-label``: for
#: each finding whether the image shows it. ``regression``: one or more measured values.
Task = Literal["single-label", "multi-label", "regression"]
#: (N,) int64 class numbers; or (N, L) float32 targets.
Labels: TypeAlias = NDArray[np.int64] | NDArray[np.float32]

#: Largest number of classes; a larger label is a mistake.
MAX_CLASSES = 1 << 17


def make_labels(
    values: NDArray[np.generic] | Sequence[int] | Sequence[Sequence[float]],
    classes: Sequence[str] | None,
    task: Task,
) -> tuple[Labels, tuple[str, ...]]:
    """Labels as a table holds them, and the names of their classes or columns.

    Args:
        values: (N,) class numbers; or (N, L) or (N,) targets. A target of a finding is 1 (present),
            0 (absent), a probability, or NaN (unknown).
        classes: names by class number, or of the columns; their numbers by default.
        task: what the labels are.

    Raises:
        DataError: the values are no labels of the task.
    """
    array = np.asarray(values)
    if task == "single-label":
        numbers = _class_numbers(array)
        count = int(numbers.max(initial=-1)) + 1
        return numbers, tuple(classes) if classes else tuple(map(str, range(count)))
    if array.ndim > 2:
        raise DataError(
            f"Labels of shape {array.shape} look like segmentation masks, which are not supported: "
            "mixed masks are not encrypted and would show the outlines in the images.",
            "Give one row of targets for each image.",
        )
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise DataError(
            f"Labels of a {task} task must be numbers (N, columns); these are {array.dtype} of "
            f"shape {array.shape}.",
            "Give a number for every image and column.",
        )
    targets = as_targets(array if array.ndim == 2 else array[:, None])
    return targets, tuple(classes) if classes else tuple(map(str, range(targets.shape[1])))


def require_no_masks(columns: int, shape: tuple[int, ...]) -> None:
    """Check that labels of ``columns`` numbers are not an image of ``shape`` (C, H, W) or a mask.

    Raises:
        DataError: they have as many numbers as an image has pixels.
    """
    if columns >= shape[-2] * shape[-1]:
        raise DataError(
            f"Labels have {columns} numbers for each image of {shape[-2]} x {shape[-1]} pixels, as "
            "flattened images or segmentation masks do. These are not supported: mixed labels are "
            "not encrypted and would show what is in the images.",
            "Give fewer targets for each image, such as findings or measured values.",
        )


def as_targets(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """``values`` as float32 targets.

    Raises:
        DataError: a whole number would become another.
    """
    with np.errstate(over="ignore"):
        targets = values.astype(np.float32)
    # As long doubles, which hold all integers of 64 bits on most machines.
    exact, stored = values.astype(np.longdouble), targets.astype(np.longdouble)
    changed = np.isfinite(exact) & (np.trunc(exact) == exact) & (exact != stored)
    if changed.any():
        raise inexact_target(f"The target {values[changed][0]}")
    return targets


def inexact_target(what: str) -> DataError:
    """The error that says that ``what`` is a whole number that float32 does not hold."""
    return DataError(
        f"{what} would be rounded to another whole number: targets are float32, which holds whole "
        "numbers up to 16,777,216.",
        "Subtract a constant from the targets, or give them in a larger unit.",
    )


def least_columns(task: Task) -> int:
    """The least number of classes or columns from which there is anything to learn."""
    return 2 if task == "single-label" else 1


def matched_labels(
    labels: Labels, names: Sequence[str], classes: Sequence[str], task: Task
) -> Labels:
    """``labels`` of the classes or columns ``names`` as labels of ``classes``; matched by name.

    A column that is not in ``names`` is unknown: NaN.

    Raises:
        DataError: a name is not in ``classes``, or a column of a regression is not in ``names``.
    """
    places = np.asarray(output_columns(names, classes), np.int64)
    if task == "single-label":
        return np.asarray(places[labels.astype(np.int64)], np.int64)
    missing = [name for name in classes if name not in set(names)]
    if task == "regression" and missing:
        raise DataError(
            f"The images lack the value {missing[0]!r}.", f"Give each of {', '.join(classes[:20])}."
        )
    targets = np.full((len(labels), len(classes)), np.nan, np.float32)
    targets[:, places] = labels
    return targets


def output_columns(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The index in ``classes`` of each of ``names``.

    Raises:
        DataError: a name is not in ``classes``.
    """
    number = {name: place for place, name in enumerate(classes)}
    strange = sorted(set(names) - set(number))
    if strange:
        raise DataError(
            f"The network knows no class {', '.join(strange[:5])}.",
            f"It knows {', '.join(classes[:20])}.",
        )
    return [number[name] for name in names]


def require_task(task: Task) -> None:
    """Check that there is such a task.

    Raises:
        DataError: there is none.
    """
    if task not in get_args(Task):
        raise DataError(
            f"There is no task {task!r:.40}.", f"Use one of {', '.join(get_args(Task))}."
        )


def require_one_task(tasks: Sequence[Task], whose: Sequence[str]) -> None:
    """Check that all ``tasks`` are the same; ``whose`` describes each for the message.

    Raises:
        DataError: two differ.
    """
    for task, of in zip(tasks, whose, strict=True):
        if task != tasks[0]:
            raise DataError(
                f"The labels of {whose[0]} are {tasks[0]}, those of {of} {task}.",
                "Use labels of one kind.",
            )


def strata(labels: Labels) -> NDArray[np.int64]:
    """(N,) class numbers, to split images of each class alike; equal where there are no classes."""
    return labels.astype(np.int64) if labels.ndim == 1 else np.zeros(len(labels), np.int64)


def require_labels(labels: Labels, classes: Sequence[str], count: int, task: Task) -> None:
    """Check the ``labels`` of a table of ``count`` images.

    Raises:
        DataError: they have a wrong type or shape, or a value that the task does not have.
    """
    require_task(task)
    if not all(isinstance(name, str) for name in classes):
        raise DataError("A class name is not a string.", "Name every class by a string.")
    if task == "single-label":
        _require_class_numbers(labels, classes, count)
        return
    if labels.dtype != np.float32 or labels.shape != (count, len(classes)) or not classes:
        raise DataError(
            f"There are {count} images and {len(classes)} columns but {labels.dtype} targets of "
            f"shape {labels.shape}.",
            "Give one target for every image and column.",
        )
    if task == "regression" and not np.isfinite(labels).all():
        raise DataError(
            "A target of the regression is not a finite number.",
            "Leave out images whose values are not known.",
        )
    if task == "multi-label" and not (np.isnan(labels) | ((labels >= 0) & (labels <= 1))).all():
        raise DataError(
            f"Findings have targets from {np.nanmin(labels):g} to {np.nanmax(labels):g}.",
            "Use 1 for present, 0 for absent and NaN for unknown.",
        )


def _require_class_numbers(labels: Labels, classes: Sequence[str], count: int) -> None:
    if labels.shape != (count,) or labels.dtype.kind != "i":
        raise DataError(
            f"There are {count} images but {labels.dtype} labels of shape {labels.shape}.",
            "Give exactly one class number an image.",
        )
    if classes and count and not 0 <= labels.min() <= labels.max() < len(classes):
        raise DataError(
            f"Labels run from {labels.min()} to {labels.max()}, "
            f"but there are {len(classes)} classes.",
            f"Use labels from 0 to {len(classes) - 1}, or name every class.",
        )


def _class_numbers(numbers: NDArray[np.generic]) -> NDArray[np.int64]:
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DataError(
            f"Labels must be one whole number an image; these are {numbers.dtype} "
            f"of shape {numbers.shape}.",
            "Give class numbers from 0 to the number of classes less one; of several findings for "
            "each image or of measured values, name the task (`task=`).",
        )
    integers = numbers.astype(np.int64)
    if integers.size and not 0 <= integers.min() <= integers.max() < MAX_CLASSES:
        raise DataError(
            f"Labels run from {integers.min()} to {integers.max()}.",
            "Number the classes from 0 without gaps.",
        )
    return integers

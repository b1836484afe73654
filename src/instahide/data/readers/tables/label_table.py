"""A table of labels, groups and parts for the images of a folder, in CSV or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from instahide.data.class_names import require_class_names
from instahide.data.duplicates.content_hash import duplicate_ids
from instahide.data.duplicates.group_hash import group_hashes
from instahide.data.group_counts import strata_of
from instahide.data.labels import Labels, Task, inexact_target, require_labels, strata
from instahide.data.readers.listing import Listing
from instahide.data.readers.medical.dicom_series import series_files
from instahide.data.readers.skipped import UNREADABLE, UNUSED_PART, Skipped
from instahide.data.readers.split_folders import Kind, split_of
from instahide.data.readers.tables.label_columns import read_columns
from instahide.data.splits import grouped_split, stratified_split
from instahide.errors import DataError
from instahide.utils.atomic_write import require_regular
from instahide.utils.number_text import plain_float

#: Largest number of columns of labels.
MOST_COLUMNS = 4096
#: What stands for a finding that is not known, in lower case.
_UNKNOWN = frozenset({"", "nan", "na", "n/a", "null", "none"})
#: The same of a class, which may well be "none".
_NO_CLASS = _UNKNOWN - {"none"}
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


def column_names(text: str) -> tuple[str, ...]:
    """The names in a text such as ``mass, nodule``."""
    return tuple(name.strip() for name in text.split(","))


@dataclass(frozen=True)
class LabelTable:
    r"""A CSV or Parquet file with one row for each image of a folder.

    Attributes:
        path: the file; its first line names the columns.
        image_column: the column with the name of the image file, or of a folder with the slices of
            one DICOM series; relative to the folder of images.
        label_columns: the columns of labels: one column of class names, or several findings or
            measured values.
        group_column: the column that names what is to be protected together, such as the patient.
            Exposure, its limits, the ledger and splits then count groups.
        split_column: the column that says `train`, `test` or `validation`.
        task: what the labels are; by default ``single-label`` with one label column, else
            ``multi-label``.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from PIL import Image
        >>> from instahide import LabelTable, open_images
        >>> with TemporaryDirectory() as folder:
        ...     for name in "ab":
        ...         image = Image.fromarray(np.full((8, 8), ord(name), np.uint8))
        ...         image.save(f"{folder}/{name}.png")
        ...     table = Path(folder, "labels.csv")
        ...     _ = table.write_text("file,mass,nodule,patient\na.png,1,0,7\nb.png,,1,7\n")
        ...     labels = LabelTable(
        ...         table, label_columns=("mass", "nodule"), group_column="patient"
        ...     )
        ...     images = open_images(folder, labels=labels, progress=False)
        >>> images.classes, images.task
        (('mass', 'nodule'), 'multi-label')
    """

    path: str | Path
    image_column: str = "file"
    label_columns: Sequence[str] = ("label",)
    group_column: str | None = None
    split_column: str | None = None
    task: Task | None = None

    @property
    def labels_task(self) -> Task:
        """What the labels are: `task`, or what follows from the number of label columns."""
        if self.task is not None:
            return self.task
        return "single-label" if len(_columns_of(self)) == 1 else "multi-label"


class Parts(NamedTuple):
    """The files for training and for testing; without a split column all are for both."""

    train: Listing
    test: Listing
    split: bool


def list_labelled(
    folder: Path, table: LabelTable, classes: tuple[str, ...] | None, *, skip_bad: bool = False
) -> Parts:
    """The files that ``table`` names in ``folder``, with their labels and groups.

    Args:
        folder: the folder of images.
        table: the labels.
        classes: the names of all classes, for a single-label task; by default those in the table.
        skip_bad: leave out rows whose file is missing.

    Raises:
        DataError: the table cannot be read, lacks a column, or has a value that is not usable; an
            image is missing, or named twice; or a group has training and test images.
    """
    names = _label_columns(table)
    wanted = [table.image_column, *names, table.group_column, table.split_column]
    columns = read_columns(Path(table.path), [name for name in wanted if name is not None])
    rows = tuple(f"Row {n} of {table.path}" for n in range(1, len(columns[names[0]]) + 1))
    if not rows:
        raise DataError(f"{table.path} has no rows.", "Write one row for each image.")
    task = table.labels_task
    labels, known = _labels([columns[name] for name in names], names, rows, task, classes)
    require_labels(labels, known, len(rows), task)
    files = _files(folder, columns[table.image_column], rows)
    groups = tuple(columns[table.group_column]) if table.group_column else ()
    names_of_files = tuple(columns[table.image_column])
    whole = Listing(folder, files, labels, known, (), task, groups, rows, names_of_files)
    parts = (
        [_part(text, row) for text, row in zip(columns[table.split_column], rows, strict=True)]
        if table.split_column
        else []
    )
    return _divided(_present(whole, parts, skip_bad))


def split_groups(listing: Listing, test_share: float) -> tuple[Listing, Listing]:
    """``test_share`` of the images for testing, by `grouped_split`; the same ones every time.

    An image in no group is one of its own.

    Raises:
        InstaHideError: as `grouped_split`.
    """
    if not listing.groups and listing.labels.ndim == 1:
        train, test = stratified_split(strata(listing.labels), test_share)
    else:
        count = len(listing.files)
        groups = duplicate_ids(group_hashes(listing.groups or [""] * count, count))
        train, test = grouped_split(strata_of(listing.labels), groups, test_share)
    return listing.subset(train), listing.subset(test)


def _columns_of(table: LabelTable) -> tuple[str, ...]:
    columns = table.label_columns
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _label_columns(table: LabelTable) -> tuple[str, ...]:
    names = _columns_of(table)
    if not 0 < len(names) <= MOST_COLUMNS or (table.task == "single-label" and len(names) > 1):
        raise DataError(
            f"{len(names)} columns of labels do not fit.",
            f"Name one column of classes, or 1 to {MOST_COLUMNS} columns of findings or measured "
            "values with `label_columns=`.",
        )
    return require_class_names(names)


def _labels(
    columns: list[list[str]],
    names: tuple[str, ...],
    rows: tuple[str, ...],
    task: Task,
    classes: tuple[str, ...] | None,
) -> tuple[Labels, tuple[str, ...]]:
    if task == "single-label":
        return _class_numbers(columns[0], rows, classes)
    if classes is not None and classes != names:
        raise DataError(
            f"The classes of a {task} task are the columns {', '.join(names[:20])}.",
            "Leave out `classes=`, and name the columns in the order that all agreed on.",
        )
    values = [
        [_number(text, f"{row}, column {name!r}") for text, row in zip(column, rows, strict=True)]
        for name, column in zip(names, columns, strict=True)
    ]
    return np.asarray(values, np.float32).T.copy(), names


def _class_numbers(
    values: list[str], rows: tuple[str, ...], classes: tuple[str, ...] | None
) -> tuple[Labels, tuple[str, ...]]:
    found = set(values)
    missing = [value for value in found - set(classes or ()) if value.lower() in _NO_CLASS]
    if missing:
        row = min(map(values.index, missing))
        raise DataError(
            f"{rows[row]} has no class, but {values[row]!r}.",
            "Name the class of every image, or rename a class of this name: programs write it "
            "where a value is missing.",
        )
    whole = all(name.isascii() and name.isdigit() for name in found)
    known = classes or require_class_names(sorted(found, key=int) if whole else sorted(found))
    unknown = sorted(found - set(known))
    if unknown:
        raise DataError(
            f"{rows[values.index(unknown[0])]} has the class {unknown[0][:100]!r}, which is none "
            f"of {', '.join(known[:20])}.",
            "Name all classes, as they are written in the table.",
        )
    numbers = {name: number for number, name in enumerate(known)}
    return np.asarray([numbers[name] for name in values], np.int64), known


def _number(text: str, where: str) -> float:
    word = text.lower()
    if word in _UNKNOWN:
        return float("nan")
    try:
        number = _WORDS[word] if word in _WORDS else plain_float(text)
    except ValueError:
        raise DataError(
            f"{where} holds no number.",
            "Write a number in the digits 0 to 9, or nothing where a finding is not known; of "
            "class names, use one column with `task='single-label'`.",
        ) from None
    if number.is_integer() and float(np.float32(number)) != number:
        raise inexact_target(f"The number of {where[0].lower()}{where[1:]},")
    return number


def _files(folder: Path, names: list[str], rows: tuple[str, ...]) -> tuple[Path, ...]:
    first: dict[str, str] = {}
    files = []
    for name, row in zip(names, rows, strict=True):
        parts = Path(name).parts
        if not name or Path(name).is_absolute() or ".." in parts or "\0" in name:
            raise DataError(
                f"{row} names no file inside of {folder}.",
                "Name files relative to the folder of images.",
            )
        other = first.setdefault("/".join(parts), row)
        if other is not row:
            raise DataError(
                f"{other} and {row} name the same image.",
                "Keep one row for each image; of several findings, use one column each.",
            )
        files.append(folder / name)
    return tuple(files)


def _part(text: str, row: str) -> Kind:
    kind = split_of(text)
    if kind is None:
        raise DataError(
            f"{row} names no part of a split.", "Write train, validation or test in every row."
        )
    return kind


def _present(listing: Listing, parts: list[Kind], skip_bad: bool) -> tuple[Listing, list[Kind]]:
    """The listing without missing files, which are an error unless ``skip_bad``."""
    there = []
    skipped = []
    for number, path in enumerate(listing.files):
        try:
            for part in series_files(path) if path.is_dir() else [path]:
                require_regular(part)
            there.append(number)
        except OSError as error:
            problem = (
                f"{listing.name(number)} names a file that cannot be read "
                f"({error.strerror or 'it is no file'})."
            )
            if not skip_bad:
                raise DataError(
                    problem,
                    "Correct the row, or use `skip_bad=True` to leave such rows out.",
                ) from None
            skipped.append(Skipped(UNREADABLE, problem))
    kept = listing.subset(np.asarray(there, np.int64))
    return replace(kept, skipped=tuple(skipped)), [parts[n] for n in there] if parts else []


def _divided(found: tuple[Listing, list[Kind]]) -> Parts:
    whole, parts = found
    if not parts:
        return Parts(whole, whole, split=False)
    kinds = np.asarray(parts)
    # As in folders: validation images are for testing if no others are.
    tests = "test" if "test" in parts else "validation"
    train, test = (np.flatnonzero(kinds == kind) for kind in ("train", tests))
    _require_apart(whole, train, test)
    left = len(whole.files) - len(train) - len(test)
    unused = [Skipped(UNUSED_PART, f"{left} rows")] if left else []
    listing = replace(whole.subset(train), skipped=(*whole.skipped, *unused))
    return Parts(listing, whole.subset(test), split=True)


def _require_apart(
    whole: Listing,
    train: np.ndarray[tuple[int], np.dtype[np.int64]],
    test: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    """Check that no group has images in both parts."""
    if not whole.groups:
        return
    # As tables compare them: names that differ only in their Unicode form are one.
    groups = duplicate_ids(group_hashes(whole.groups, len(whole.groups))).tolist()
    trained = {groups[number]: number for number in train}
    for number in test:
        other = trained.get(groups[number])
        if other is not None:
            raise DataError(
                f"{whole.name(int(other))} is for training and {whole.name(int(number))} for "
                "testing, but both are of one group.",
                "Put all images of a group into one part, or leave out `split_column=`.",
            )

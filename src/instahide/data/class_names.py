"""Validation and matching of class names, so that participants number classes alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from instahide.data.labels import matched_labels
from instahide.data.table import ImageTable
from instahide.errors import DataError
from instahide.utils.atomic_write import read_regular

#: Largest size of a file of class names in bytes; enough for a hundred thousand names.
MOST_BYTES = 1 << 22
#: Largest length of a name in characters.
MOST_NAME = 200


def class_list(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The class names as a tuple, or None if ``names`` is None.

    Raises:
        DataError: there is none, a name occurs twice, or a name is not printable text.
    """
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise DataError(
            "The classes are not a list of names.", "Pass a list such as ['cat', 'dog']."
        )
    classes = require_class_names(names)
    if not classes:
        raise DataError("No class is named.", "Name all classes that participants have.")
    return classes


def require_class_names(names: Sequence[str]) -> tuple[str, ...]:
    """The ``names`` as a tuple, if they are valid class names.

    Raises:
        DataError: a name occurs twice, or is not printable text.
    """
    classes = tuple(names)
    for name in classes:
        if not 0 < len(name) <= MOST_NAME or not name.isprintable() or name != name.strip():
            raise DataError(
                f"{name[:MOST_NAME]!r} is not a valid class name.",
                f"Use 1 to {MOST_NAME} printable characters without spaces around them.",
            )
    require_distinct_names(classes)
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"The class {twice!r} is named twice.", "Name every class once.")
    return classes


def require_distinct_names(names: Iterable[str], where: str = "") -> None:
    """Check that no two class names look the same to a reader.

    Args:
        names: names of all classes; a name may occur twice.
        where: text for the message that says whose classes they are.

    Raises:
        DataError: two differ only in their Unicode form, in case, or in space around them.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_read_as(name), name)
        if other != name:
            raise DataError(
                f"The class names {other!r} and {name!r}{where} differ only in case, in space "
                "around them or in how Unicode writes them "
                f"({other!a} and {name!a}).",
                "Use the same name for a class everywhere, and clearly different names for "
                "different classes.",
            )


def _read_as(name: str) -> str:
    """A canonical form, equal for names that look the same."""
    # Folding may change the normal form, and normalization the case.
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def read_class_list(text: str) -> tuple[str, ...]:
    """The classes in ``text``, such as ``cat,dog``, or in the file ``text`` with one name per line.

    Raises:
        DataError: as `class_list`, or the file cannot be read.
    """
    path = Path(text)
    if "," in text and not path.is_file():
        return class_list([name.strip() for name in text.split(",")]) or ()
    try:
        lines = read_regular(path, MOST_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"The classes {text} are neither several names nor a readable file.",
            "Write them as cat,dog, or name a text file with one name a line.",
        ) from error
    return class_list([line.strip() for line in lines if line.strip()]) or ()


def with_classes(table: ImageTable, classes: tuple[str, ...] | None) -> ImageTable:
    """``table`` with its labels as indices into ``classes``; unchanged if ``classes`` is None.

    Classes are matched by name. Classes named 0, 1, ... take the names of ``classes`` in order.

    Raises:
        DataError: the table has a class that is not in ``classes``, or two names differ only in
            case, space or Unicode form.
    """
    require_distinct_names([*table.classes, *(classes or ())])
    if classes is None or table.classes == classes:
        return table
    if set(table.classes) <= set(classes):
        labels = matched_labels(table.labels, table.classes, classes, table.task)
        return replace(table, labels=labels, classes=classes)
    if table.classes != tuple(map(str, range(len(table.classes)))):
        unknown = next(name for name in table.classes if name not in classes)
        raise DataError(
            f"The images have a class {unknown!r}, which is not among the given names.",
            f"Use the names of the images: {', '.join(table.classes[:20])}.",
        )
    if len(table.classes) > len(classes):
        raise DataError(
            f"The images have {len(table.classes)} classes, but {len(classes)} are named.",
            "Name every class, in the order of their numbers.",
        )
    if table.task != "single-label" and len(table.classes) < len(classes):
        raise DataError(
            f"The labels have {len(table.classes)} columns without names, but {len(classes)} are "
            "named.",
            "Name the columns of the images, in their order.",
        )
    return replace(table, classes=classes)

"""Finds the training and test folders of a folder, however they are spelled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from instahide.data.readers.listing import visible_folders
from instahide.errors import DataError

Kind = Literal["train", "test", "validation"]

_WORDS: dict[str, Kind] = {
    "train": "train", "training": "train", "trn": "train",
    "test": "test", "testing": "test", "tst": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
    "validate": "validation", "validating": "validation", "dev": "validation",
    "eval": "validation", "evaluation": "validation", "holdout": "validation",
}  # fmt: skip
#: Further words in such a name that do not change its meaning, as in `train_images`.
_FILLERS = {"set", "data", "dataset", "image", "images", "img", "imgs", "split", "folder", "part"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


class SplitFolders(NamedTuple):
    """The training and test folders, and the folders next to them, which are skipped."""

    train: Path
    test: Path
    others: tuple[Path, ...]


def split_of(name: str) -> Kind | None:
    """The part that a folder ``name`` such as `Training` or `val2017` stands for; None if none."""
    if any(char.isalpha() for char in _WORD.sub("", name)):
        return None
    kinds = set()
    for word in (found.group().lower() for found in _WORD.finditer(name)):
        known = _WORDS.get(word) or _WORDS.get(re.sub("(set|data)$", "", word))
        if known is None and word not in _FILLERS:
            return None
        kinds.add(known)
    kinds.discard(None)
    return kinds.pop() if len(kinds) == 1 else None


def find_split_folders(folder: Path, classes: Sequence[str] | None = None) -> SplitFolders | None:
    """The training and test folders in ``folder``; None if its folders are classes.

    Validation images are used if there are no test images. Folders that are named like parts are
    classes if ``classes`` contains their names.

    Raises:
        InstaHideError: the folders are ambiguous, or there are two for one part.
    """
    folders = visible_folders(folder)
    by_kind: dict[Kind, list[Path]] = {"train": [], "test": [], "validation": []}
    for path in folders:
        if kind := split_of(path.name):
            by_kind[kind].append(path)
    train, tests = by_kind["train"], by_kind["test"] or by_kind["validation"]
    named = [*train, *by_kind["test"], *by_kind["validation"]]
    if not named or (classes and any(path.name in classes for path in named)):
        return None
    if not train or not tests:
        _require_classes(folder, named, folders)
        return None
    with_classes = [path for path in (*train, *tests) if visible_folders(path)]
    if not with_classes and len(named) < len(folders):
        return None
    if len(with_classes) < len(train) + len(tests):
        raise _no_classes_inside(folder, next(p for p in named if p not in with_classes))
    for same in (train, tests):
        if len(same) > 1:
            raise _ambiguous(folder, same)
    return SplitFolders(
        train[0], tests[0], tuple(p for p in folders if p not in (train[0], tests[0]))
    )


def require_no_split_classes(folder: Path) -> None:
    """Check that no class folder of ``folder`` holds training and test folders of its own.

    Raises:
        DataError: one does, so that test images would be trained on.
    """
    for path in visible_folders(folder):
        kinds = {split_of(inside.name) for inside in visible_folders(path)}
        if "train" in kinds and kinds & {"test", "validation"}:
            raise DataError(
                f"The class folder {path} holds training and test images together.",
                "Put the parts outside and the classes inside, as in train/cat and test/cat.",
            )


def _require_classes(folder: Path, named: list[Path], folders: list[Path]) -> None:
    """Check that ``named``, which are named like a single part, are classes."""
    for path in named:
        inside = {found.name for found in visible_folders(path)}
        others = [
            {found.name for found in visible_folders(other)} for other in folders if other != path
        ]
        if inside and (not others or any(not names or names & inside for names in others)):
            raise DataError(
                f"{path} is called like a part of a data set and holds folders, but {folder} does "
                "not hold both training and test images.",
                f"Open {path} itself, or put folders called train and test beside each other; if "
                "it is a class, name all classes.",
            )


def _no_classes_inside(folder: Path, path: Path) -> DataError:
    return DataError(
        f"{folder} looks like training and test images, but {path} has no class folders.",
        "Put the images of every class into a folder of its own inside both, as in train/cat and "
        "test/cat; if they are classes, name all classes.",
    )


def _ambiguous(folder: Path, same: list[Path]) -> DataError:
    return DataError(
        f"{folder} holds several folders of one part: {', '.join(path.name for path in same)}.",
        "Keep one for training and one for testing, or move the others elsewhere.",
    )

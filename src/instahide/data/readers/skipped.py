"""Skipped files of a folder of images, and the warning about them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from instahide.errors import printable
from instahide.utils.atomic_write import write_json


class SkippedWarning(UserWarning):
    """A part of a source of images was skipped."""


class Skipped(NamedTuple):
    """A skipped file or folder: one of the reasons below, and its name."""

    reason: str
    name: str


# The reasons, in the plural.
OTHER_FILES = "files that are not named like images"
OUTSIDE = "image files outside the class folders"
LINKS = "links to folders that are read already"
UNREADABLE = "files or folders that cannot be read"
NO_IMAGES = "class folders without images"
OTHER_FOLDERS = "folders next to the training and test folders"
DIRECTORIES = "indices of DICOM files (DICOMDIR)"
UNUSED_PART = "validation images, as there are test images"
FLAT = "images without a patch that is not flat"
FRAMES = "files with further frames or pages, of which the first was read"


def warn_of_skipped(source: object, skipped: Sequence[Skipped], total: int = 0) -> None:
    """Warn of what was ``skipped`` in ``source``, with the first name of each kind.

    Args:
        source: the folder.
        skipped: skipped files and folders; nothing happens if it is empty.
        total: number of files, readable or not.
    """
    kinds: dict[str, list[str]] = {}
    for reason, name in skipped:
        kinds.setdefault(reason, []).append(name)
    if bad := kinds.pop(UNREADABLE, None):
        _warn(f"Skipped {len(bad)} of {total} files; the first: {bad[0]}")
    if kinds:
        parts = "; ".join(f"{reason}: {_counted(names)}" for reason, names in kinds.items())
        _warn(f"Left out of {source}: {parts}.")


def _warn(text: str) -> None:
    # Two levels: the command line shows warnings of this package as notes, whoever called it.
    warnings.warn(printable(text), SkippedWarning, stacklevel=2)


class Notes(NamedTuple):
    """Notes on decoded files, stored next to the decoded images.

    Attributes:
        skipped: skipped files.
        kept: the numbers of the files that were read.
    """

    skipped: list[Skipped]
    kept: list[int]


def write_notes(path: Path, notes: Notes) -> None:
    """Write ``notes`` to ``path``, and delete those of other states next to it."""
    for old in path.parent.glob(".notes-*.json"):
        old.unlink(missing_ok=True)
    if notes.skipped:
        write_json(path, notes)


def read_notes(path: Path) -> Notes:
    """Read the notes in ``path``; empty ones if it does not exist: all files were read."""
    try:
        skipped, kept = json.loads(path.read_bytes())
        return Notes(
            [Skipped(str(reason), str(name)) for reason, name in skipped],
            [int(number) for number in kept],
        )
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return Notes([], [])


def _counted(names: Iterable[str]) -> str:
    first, *others = names
    return f"{1 + len(others)}, the first {first}" if others else first

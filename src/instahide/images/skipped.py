"""What was left out of a folder of images, and how that is said."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from instahide.errors import printable
from instahide.files import write_json


class SkippedWarning(UserWarning):
    """A source of images holds something that was left out, or read in part."""


class Skipped(NamedTuple):
    """One thing that was left out: one of the reasons below, and its name."""

    reason: str
    name: str


# Each reason as it is said of several things.
OTHER_FILES = "files that are not named like images"
OUTSIDE = "image files outside the class folders"
LINKS = "links to folders that are read already"
UNREADABLE = "files or folders that cannot be read"
NO_IMAGES = "class folders without images"
BESIDE = "folders beside the training and test folders"
FRAMES = "files with further frames or pages, of which the first was read"


def warn_of_skipped(source: object, skipped: Sequence[Skipped], total: int = 0) -> None:
    """Warn of what was ``skipped`` in ``source``, with the first name of each kind.

    Args:
        source: where it lies.
        skipped: what was left out; nothing happens if it is empty.
        total: files there are, readable or not.
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


def write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    """Keep what was ``skipped`` in ``path``, in the place of what other files beside it hold."""
    for old in path.parent.glob(".skipped-*.json"):
        old.unlink(missing_ok=True)
    if skipped:
        write_json(path, skipped)


def read_skipped(path: Path) -> list[Skipped]:
    """What `write_skipped` kept in ``path``; nothing if it is not there."""
    try:
        return [Skipped(str(reason), str(name)) for reason, name in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def _counted(names: Iterable[str]) -> str:
    first, *others = names
    return f"{1 + len(others)}, the first {first}" if others else first

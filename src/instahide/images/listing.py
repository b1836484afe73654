"""Which image files a folder holds, and of which classes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class Listing:
    """Image files with their class numbers, not yet decoded."""

    root: Path
    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def subset(self, indices: NDArray[np.int64]) -> Listing:
        """The named files only."""
        return replace(
            self, files=tuple(self.files[i] for i in indices), labels=self.labels[indices]
        )


def list_classes(folder: Path, classes: tuple[str, ...] | None = None) -> Listing:
    """Every image file below the class folders of ``folder``, in order.

    Args:
        folder: holds one folder a class.
        classes: the names to number classes by; the sorted folder names by default.

    Raises:
        InstaHideError: missing, unreadable or empty folder, or a class that is not in ``classes``.
    """
    names = _class_folders(folder)
    unknown = sorted(set(names) - set(classes or names))
    if unknown:
        raise InstaHideError(
            f"{folder} has the class {unknown[0]!r}, which the training folder does not have.",
            "Use the same class folder names for training and testing.",
        )
    classes = classes or tuple(names)
    files: list[Path] = []
    labels: list[int] = []
    for name in names:
        found = image_files(folder / name)
        files += found
        labels += [classes.index(name)] * len(found)
    return Listing(folder, tuple(files), np.asarray(labels, np.int64), classes)


def image_files(folder: Path) -> list[Path]:
    """Every file with an image's name below ``folder``, sorted.

    Raises:
        InstaHideError: the folder cannot be read or holds no image.
    """
    try:
        found = [
            Path(parent) / name
            for parent, _, names in os.walk(folder, onerror=_fail)
            for name in names
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    except OSError as error:
        raise _unreadable(folder, error) from error
    if not found:
        raise InstaHideError(
            f"{folder} holds no image files.",
            "Put JPEG, PNG, WebP, BMP or TIFF files there, or remove the folder.",
        )
    return sorted(found)


def entries(folder: Path) -> list[Path]:
    """What lies in ``folder``, sorted by name.

    Raises:
        InstaHideError: it is missing or cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from error


def _class_folders(folder: Path) -> list[str]:
    names = [
        entry.name for entry in entries(folder) if entry.is_dir() and entry.name[0] not in "._"
    ]
    if not names:
        raise InstaHideError(
            f"{folder} has no class folders.",
            "Put the images of every class into a folder of its own, named after the class.",
        )
    return names


def _fail(error: OSError) -> NoReturn:
    raise error


def _unreadable(folder: Path, error: OSError) -> InstaHideError:
    return InstaHideError(
        f"Cannot read {folder} ({error.strerror or error}).",
        "Check the path and its permissions.",
    )

"""Lists the image files of a folder and their classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from instahide.data.class_names import require_distinct_names
from instahide.data.labels import Labels, Task
from instahide.data.readers.any_image import is_image_name
from instahide.data.readers.image_file import IMAGE_SUFFIXES
from instahide.data.readers.medical.dicom import DIRECTORY, is_dicom
from instahide.data.readers.skipped import (
    DIRECTORIES,
    LINKS,
    NO_IMAGES,
    OTHER_FILES,
    OUTSIDE,
    UNREADABLE,
    Skipped,
    warn_of_skipped,
)
from instahide.errors import DataError
from instahide.utils.atomic_write import require_regular

#: Files of operating systems and programs; these and hidden files are skipped silently.
SYSTEM_NAMES = frozenset(
    {
        "$RECYCLE.BIN", "@eaDir", "System Volume Information", "Thumbs.db", "__MACOSX",
        "__pycache__", "desktop.ini", "ehthumbs.db", "lost+found",
    }
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Listing:
    """Image files with their labels, not decoded yet, and skipped files.

    Attributes:
        root: the folder.
        files: the image files.
        labels: as in an `ImageTable`.
        classes: as in an `ImageTable`.
        skipped: skipped files.
        task: what the labels are.
        groups: the group of each file, if a table of labels names groups.
        rows: what messages call each file instead of its name, if a table of labels names files:
            names of files may tell who is shown.
        names: the name of each file as a table of labels writes it, if one names files.
    """

    root: Path
    files: tuple[Path, ...]
    labels: Labels
    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    task: Task = "single-label"
    groups: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Only sizes, because names of files and groups may tell who is shown."""
        return f"Listing({len(self.files)} files, {len(self.classes)} classes)"

    def subset(self, indices: NDArray[np.int64]) -> Listing:
        """The named files only."""
        return replace(
            self,
            files=tuple(self.files[i] for i in indices),
            labels=self.labels[indices],
            groups=tuple(self.groups[i] for i in indices) if self.groups else (),
            rows=tuple(self.rows[i] for i in indices) if self.rows else (),
            names=tuple(self.names[i] for i in indices) if self.names else (),
        )

    def name(self, number: int) -> str:
        """What messages call a file."""
        return self.rows[number] if self.rows else str(self.files[number])


class Found(NamedTuple):
    """Image files at any depth, sorted, and skipped files."""

    files: list[Path]
    skipped: list[Skipped]

    @property
    def total(self) -> int:
        """The number of files with the name of an image, readable or not."""
        return len(self.files) + sum(reason == UNREADABLE for reason, _ in self.skipped)


def list_classes(
    folder: Path, classes: Sequence[str] | None = None, *, skip_bad: bool = False
) -> Listing:
    """Every image file below the class folders of ``folder``, in order.

    Args:
        folder: holds one folder a class, which may be empty.
        classes: the names to number classes by, of which some may have no folder; the sorted
            folder names by default.
        skip_bad: leave out what cannot be read.

    Raises:
        DataError: missing or unreadable folder, no image, or a class that is not in
            ``classes``.
    """
    names = [path.name for path in visible_folders(folder)]
    if not names:
        raise DataError(
            f"{folder} has no class folders.",
            "Put the images of every class into a folder of its own, named after the class.",
        )
    require_distinct_names([*(classes or ()), *names], f" of {folder}")
    unknown = sorted(set(names) - set(classes or names))
    if unknown:
        raise DataError(
            f"{folder} has the class {unknown[0]!r}, which is none of {', '.join(classes or ())}.",
            "Use the same class names everywhere: in training and test folders, and where you "
            "name the classes.",
        )
    known = tuple(classes or names)
    files: list[Path] = []
    labels: list[int] = []
    skipped = _beside_classes(folder)
    for name in names:
        found = find_images(folder / name, skip_bad=skip_bad)
        if not found.files:
            _require_empty(folder / name, found)
            skipped.append(Skipped(NO_IMAGES, name))
        files += found.files
        labels += [known.index(name)] * len(found.files)
        skipped += found.skipped
    if not files:
        raise no_images(folder / names[0])
    return Listing(folder, tuple(files), np.asarray(labels, np.int64), known, tuple(skipped))


def image_files(folder: Path, *, skip_bad: bool = False) -> list[Path]:
    """Every photograph (PNG, JPEG, ...) below ``folder``, sorted; warns of what is left out.

    Raises:
        InstaHideError: the folder cannot be read or holds no image.
    """
    found = find_images(folder, skip_bad=skip_bad)
    files = [path for path in found.files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files and found.files:
        raise DataError(
            f"{folder} holds no photographs, but other images, such as DICOM or NIfTI files.",
            "Cut a pool from them with `instahide public` and `size=64,64,64` or `size=64,64`.",
        )
    if not files:
        raise no_images(folder)
    photographs = set(files)
    others = [Skipped(OTHER_FILES, str(path)) for path in found.files if path not in photographs]
    warn_of_skipped(folder, [*found.skipped, *others], found.total)
    return files


def find_images(folder: Path, *, skip_bad: bool = False) -> Found:
    """Every image file below ``folder``, by its name or as DICOM; links to folders are followed.

    No folder is read twice, so cyclic links do no harm.

    Raises:
        InstaHideError: a folder, or a file unless ``skip_bad``, cannot be read.
    """
    found = Found([], [])
    seen = {_identity(folder)}
    try:
        for parent, folders, names in os.walk(folder, onerror=_fail, followlinks=True):
            here = Path(parent)
            folders[:] = sorted(name for name in folders if not _is_hidden(name))
            for name in list(folders):
                if (identity := _identity(here / name)) in seen:
                    found.skipped.append(Skipped(LINKS, str(here / name)))
                    folders.remove(name)
                seen.add(identity)
            for name in sorted(names):
                _sort_in(here / name, found, skip_bad)
    except (OSError, RecursionError) as error:
        raise _unreadable(folder, error) from error
    found.files.sort()
    return found


def entries(folder: Path) -> list[Path]:
    """The entries of ``folder``, sorted by name.

    Raises:
        InstaHideError: the folder is missing or cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from error


def visible_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``, links to folders too, without hidden ones; sorted by name."""
    return [path for path in entries(folder) if not _is_hidden(path.name) and _is_folder(path)]


def _sort_in(path: Path, found: Found, skip_bad: bool) -> None:
    """Add a file to the images or to the skipped files."""
    if _is_hidden(path.name):
        return
    if path.name == DIRECTORY:
        found.skipped.append(Skipped(DIRECTORIES, str(path)))
        return
    try:
        if not is_image_name(path.name) and not is_dicom_file(path):
            found.skipped.append(Skipped(OTHER_FILES, str(path)))
            return
        require_regular(path)
    except OSError as error:
        if not skip_bad:
            raise _unreadable_file(path, error) from error
        found.skipped.append(Skipped(UNREADABLE, _unreadable_file(path, error).problem))
    else:
        found.files.append(path)


def is_dicom_file(path: Path) -> bool:
    """Whether a file that is not named like an image is DICOM, as those of studies are."""
    try:
        return is_dicom(path)
    except OSError:
        return False


def _beside_classes(folder: Path) -> list[Skipped]:
    """Files next to the class folders, which are skipped."""
    return [
        Skipped(OUTSIDE if is_image_name(path.name) else OTHER_FILES, str(path))
        for path in entries(folder)
        if not _is_hidden(path.name) and not _is_folder(path)
    ]


def _require_empty(folder: Path, found: Found) -> None:
    """Check that a class folder without images is empty; other files in it are a mistake."""
    if any(reason == OTHER_FILES for reason, _ in found.skipped):
        raise no_images(folder)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # A link to a place without permission.
        raise _unreadable(path, error) from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_NAMES


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _fail(error: OSError) -> NoReturn:
    raise error


def no_images(folder: Path) -> DataError:
    """The error for a folder without image files."""
    return DataError(
        f"{folder} holds no image files.",
        "Put PNG, JPEG, TIFF, WebP, BMP, DICOM or NIfTI files there, or remove the folder.",
    )


def _unreadable_file(path: Path, error: OSError) -> DataError:
    target = f"a link to {path.readlink()}, " if path.is_symlink() else ""
    return DataError(
        f"{path} cannot be read ({target}{error.strerror or error}).",
        "Replace or remove the file, or use `skip_bad=True` to leave it out.",
    )


def _unreadable(folder: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(f"Cannot read {folder} ({reason}).", "Check the path and its permissions.")

"""Checks that images are none of those that a run was trained or tested on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable, open_images, open_test
from instahide.data.image_source import keys_of
from instahide.errors import DamagedFileError, DataError, InstaHideError
from instahide.training.data.pooled import holds_encodings
from instahide.training.data.private import open_private
from instahide.training.distributed.sharding import RANK
from instahide.training.run_folder import RunFolder
from instahide.training.settings import TrainSettings

#: Rows that a message names.
_NAMED = 5


def require_unused(images: ImageTable, source: str, run: Path) -> None:
    """Check that none of ``images`` is one that the run was trained or tested on.

    Pictures are compared by their content, also at other sizes if they were resized from one file;
    images of a common group count too. Of images of the run that cannot be read any more, such as
    those of a process on another machine, only the names of the sources are compared, and a warning
    says so. Of a run on folders of encodings, only the test images are known. A folder without
    settings, such as one of a federation, is not checked.

    Args:
        images: the images, as they were read.
        source: their source, as the user named it.
        run: folder of the run.

    Raises:
        DataError: some of the images are the run's own.
    """
    file = run / "settings.json"
    if not file.is_file():
        return
    found, unread = np.zeros(len(images), bool), list[str]()
    for settings in _settings_of_processes(TrainSettings.load(file), run):
        tables, names = _images_of(settings)
        found |= are_among(images, tables)
        unread += names
    if found.any():
        numbers = np.flatnonzero(found)
        rows = ", ".join(map(str, numbers[:_NAMED])) + (", ..." if len(numbers) > _NAMED else "")
        raise _own(f"{len(numbers):,} of the {len(images):,} images in {source} (rows {rows})")
    _require_other_name(source, list(dict.fromkeys(unread)))


def are_among(images: ImageTable, tables: Iterable[ImageTable]) -> NDArray[np.bool]:
    """(n,) whether each of ``images`` is in one of ``tables``, or of a group in them.

    Pictures are compared as by `require_unused`.
    """
    used = {key for table in tables for key in _keys(keys_of(table).reshape(-1, 2))}
    each = keys_of(images)
    known = np.asarray([key in used for key in _keys(each.reshape(-1, 2))], bool)
    # A key of zeros is unknown.
    return np.asarray((known.reshape(each.shape[:2]) & each.any(axis=2)).any(axis=1))


def _settings_of_processes(settings: TrainSettings, run: Path) -> list[TrainSettings]:
    """The settings with the sources of each process, where the processes had sources of their own.

    If it is unknown how many there were, the settings as they are, whose sources cannot be read.
    """
    sources = {"data": settings.data, "test": settings.test}
    names = {name: value for name, value in sources.items()
             if isinstance(value, str) and RANK in value}  # fmt: skip
    processes: list[list[str]] = []
    with suppress(DamagedFileError):
        processes = RunFolder(run, settings).data()[1] if names else []
    if len(processes) <= 1:
        return [settings]
    return [
        settings.merged({name: value.replace(RANK, str(rank)) for name, value in names.items()})
        for rank in range(len(processes))
    ]


def _images_of(settings: TrainSettings) -> tuple[list[ImageTable], list[str]]:
    """The images of a run that can be read, and the names of the sources that cannot."""
    test, options = settings.test, settings.read_options()
    if not settings.pooled:
        with suppress(InstaHideError):
            return list(open_private(settings)), []
    tables, unread = [], list[str]()
    # Of encodings the images are not known.
    data = [settings.data] if isinstance(settings.data, str) else []
    # Where no test images are named, the source may have a test part.
    tests = data if test is None else [] if holds_encodings(test) else [test]
    for opened, names in ((open_images, data), (open_test, tests)):
        for name in names:
            try:
                tables.append(opened(name, **options))
            except InstaHideError:
                unread.append(name)
    return tables, unread


def _keys(hashes: NDArray[np.uint64]) -> list[bytes]:
    return [bytes(words) for words in hashes]


def _require_other_name(source: str, unread: list[str]) -> None:
    """Check that ``source`` is none that could not be read, and warn that only names were compared.

    Raises:
        DataError: it is one of them.
    """
    if not unread:
        return
    if str(Path(source).resolve()) in {str(Path(name).resolve()) for name in unread}:
        raise _own(source)
    warnings.warn(
        f"The run's images ({', '.join(unread)}) cannot be read, so that it is unknown whether "
        f"images of {source} are among them.",
        stacklevel=3,
    )


def _own(what: str) -> DataError:
    return DataError(
        f"The run was trained or tested on {what}, or on images of the same groups. What is fitted "
        "to them does not hold for new images, and a test on them would be too favorable.",
        "Name images that the run has never used.",
    )

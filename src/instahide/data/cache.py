"""Tables made once and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.data.table import ImageTable
from instahide.errors import InstaHideError
from instahide.utils.atomic_write import atomic_write

#: Beside the tables of a folder of the user's: where that folder is.
_SOURCE = ".source"


def cache_folder() -> Path:
    """``$INSTAHIDE_CACHE``, or `instahide` in the user's cache folder; private to the user.

    Raises:
        InstaHideError: it cannot be made.
    """
    import platformdirs

    chosen = os.environ.get("INSTAHIDE_CACHE")
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("instahide")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Decoded private images lie here: nobody else may read them.
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unwritable(f"Cannot make the cache folder {folder} ({error}).") from error
    return folder


def cached_table(
    name: str, state: str, make: Callable[[], ImageTable], *, source: Path | None = None
) -> ImageTable:
    """The table ``name`` as it is in ``state``, memory-mapped; made if it is not in the cache.

    Tables of other states of the same name are deleted, and all whose source is gone: images that
    the user took out of a data set do not stay behind.

    Args:
        name: of a folder in the cache.
        state: what else the table depends on.
        make: makes the table.
        source: folder of the user's that the images come from.

    Raises:
        InstaHideError: ``make`` fails, or the cache cannot be written.
    """
    folder = cache_folder()
    _remove_orphans(folder)
    path = folder / name / state
    if not path.exists():
        _keep(make(), path)
    if source is not None:
        _note(source.resolve(), path.parent / _SOURCE)
    try:
        return ImageTable.load(path)
    except InstaHideError:
        # A damaged cache is not the user's concern: make it again.
        shutil.rmtree(path, ignore_errors=True)
        _keep(make(), path)
        return ImageTable.load(path)


def digest(value: object) -> str:
    """32 hexadecimal digits that stand for ``value``, which is JSON, in a name."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def memory_mapped(
    rows: Generator[NDArray[np.uint8], None, None], folder: Path
) -> NDArray[np.uint8]:
    """Stack ``rows`` of one shape, however many, in an unnamed file of ``folder``: (n, *shape).

    The file has no name, so that nothing stays behind, whatever happens to the process.

    Raises:
        InstaHideError: the disk is full, or ``folder`` is read-only.
    """
    shape, count = (0,), 0
    try:
        with closing(rows), tempfile.TemporaryFile(dir=folder) as file:
            for row in rows:
                file.write(row.tobytes())
                shape, count = row.shape, count + 1
            file.flush()
            if count == 0:
                return np.empty((0, *shape), np.uint8)
            return np.memmap(file, np.uint8, mode="r", shape=(count, *shape))
    except OSError as error:
        raise _unwritable(f"Cannot write in {folder} ({error.strerror or error}).") from error


def _remove_orphans(folder: Path) -> None:
    for note in folder.glob(f"*/{_SOURCE}"):
        # Another process may have been faster; a source that cannot be looked for is not gone.
        with suppress(OSError):
            if not Path(os.fsdecode(note.read_bytes())).exists():
                shutil.rmtree(note.parent, ignore_errors=True)


def _keep(table: ImageTable, path: Path) -> None:
    try:
        table.save(path)
    except InstaHideError as error:
        # Another process may have made the same table meanwhile.
        if not path.exists():
            raise _unwritable(error.problem) from error
    for other in path.parent.iterdir():
        if other.name != path.name and not other.name.startswith("."):
            shutil.rmtree(other, ignore_errors=True)


def _note(source: Path, path: Path) -> None:
    """Write where ``source`` is to ``path``, unless that was done."""
    if path.exists():
        return
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(os.fsencode(source))
    except InstaHideError as error:
        raise _unwritable(error.problem) from error


def _unwritable(problem: str) -> InstaHideError:
    return InstaHideError(
        problem,
        "Free some space, or use a folder that you may write to (INSTAHIDE_CACHE, for the cache).",
    )

"""Tables that are computed once and stored in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from instahide.data.table import ImageTable
from instahide.errors import InstaHideError
from instahide.utils.atomic_write import atomic_write

Pixel = TypeVar("Pixel", bound=np.generic)

#: Next to the tables of a folder: a file with the path of that folder.
_SOURCE = ".source"


def cache_folder() -> Path:
    """``$INSTAHIDE_CACHE``, or `instahide` in the user's cache folder; private to the user.

    Raises:
        InstaHideError: the folder cannot be created.
    """
    import platformdirs

    chosen = os.environ.get("INSTAHIDE_CACHE")
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("instahide")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # It stores decoded private images, which only the user may read.
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unwritable(f"Cannot make the cache folder {folder} ({error}).") from error
    return folder


def cached_table(
    name: str, state: str, make: Callable[[], ImageTable], *, source: Path | None = None
) -> ImageTable:
    """The cached table ``name`` for ``state``, memory-mapped; computed by ``make`` if missing.

    Tables of the same name for other states are deleted, and so are tables whose source is gone:
    images that the user removed from a data set do not stay in the cache.

    Args:
        name: name of its folder in the cache.
        state: text that changes with everything that the table depends on.
        make: computes the table.
        source: the user's folder that contains the images.

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
        # Recompute a damaged table; the user need not know.
        shutil.rmtree(path, ignore_errors=True)
        _keep(make(), path)
        return ImageTable.load(path)


def forget_table(name: str, state: str) -> None:
    """Delete the cached table ``name`` for ``state``, so that it is computed again."""
    shutil.rmtree(cache_folder() / name / state, ignore_errors=True)


def digest(value: object) -> str:
    """A hash of the JSON ``value``, 32 hexadecimal digits, for use in a name."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def memory_mapped(rows: Generator[NDArray[Pixel], None, None], folder: Path) -> NDArray[Pixel]:
    """Stack ``rows`` of one shape and type in an unnamed file in ``folder``, memory-mapped.

    Without rows the result is (0, 0), of bytes. The file has no name, so that it is gone when the
    process ends, however that happens.

    Raises:
        InstaHideError: the disk is full, or ``folder`` is read-only.
    """
    first: NDArray[Pixel] | None = None
    count = 0
    try:
        with closing(rows), tempfile.TemporaryFile(dir=folder) as file:
            for row in rows:
                file.write(row.tobytes())
                first, count = row if first is None else first, count + 1
            file.flush()
            if first is None:
                return np.empty((0, 0), np.uint8)
            return np.memmap(file, first.dtype, mode="r", shape=(count, *first.shape))
    except OSError as error:
        raise _unwritable(f"Cannot write in {folder} ({error.strerror or error}).") from error


def _remove_orphans(folder: Path) -> None:
    for note in folder.glob(f"*/{_SOURCE}"):
        # Another process may have removed it; a source that cannot be accessed may still exist.
        with suppress(OSError):
            if not Path(os.fsdecode(note.read_bytes())).exists():
                shutil.rmtree(note.parent, ignore_errors=True)


def _keep(table: ImageTable, path: Path) -> None:
    try:
        table.save(path)
    except InstaHideError as error:
        # Another process may have stored the same table meanwhile.
        if not path.exists():
            raise _unwritable(error.problem) from error
    for other in path.parent.iterdir():
        if other.name != path.name and not other.name.startswith("."):
            shutil.rmtree(other, ignore_errors=True)


def _note(source: Path, path: Path) -> None:
    """Write the path of ``source`` to ``path``, unless it is there."""
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

"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instahide.errors import InstaHideError


@contextmanager
def writing(path: Path, *, mode: int = 0o600) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; sync and rename it if all goes well.

    Args:
        path: the file.
        mode: its permissions, less those that the user's mask takes away.

    Raises:
        InstaHideError: the folder is read-only or missing, or the disk is full.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        partial = made
        granted = partial.stat().st_mode
        yield partial
        # Whoever wrote it may have put another file in its place.
        partial.chmod(granted)
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Like `writing`, for a folder of files that only make sense together.

    ``path`` may exist if it is empty.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        yield partial
        for file in partial.iterdir():
            _sync(file)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    with writing(path) as partial:
        partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> InstaHideError:
    return InstaHideError(
        f"Cannot write {path}: {error.strerror or error}.",
        "Free some space, or choose an output folder that you may write to.",
    )

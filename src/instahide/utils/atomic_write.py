"""Atomic writes of files and folders, and safe opening of untrusted files."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from instahide.errors import InstaHideError


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; symbolic links are followed.

    Named pipes, sockets and devices are rejected before they are opened, because opening one can
    block forever or act on hardware.

    Raises:
        OSError: the file does not exist, cannot be read, or is not a regular file.
    """
    require_regular(path)
    # Another process may replace the file in between: open without blocking, and check again.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular_mode(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a regular file of at most ``most`` bytes.

    Raises:
        OSError: like `open_regular`, or the file is larger.
    """
    with open_regular(path) as file:
        # `read` allocates memory for the requested size, so the size is bounded first.
        content = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return content


def require_regular(path: str | os.PathLike[str]) -> None:
    """Check that ``path`` is a regular file, without opening it.

    Raises:
        OSError: it does not exist, or is not a regular file.
    """
    _require_regular_mode(Path(path).stat().st_mode, path)


def _require_regular_mode(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o600) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success, sync it and rename it to ``path``.

    A symbolic link is refused. To rename onto it would leave the file that it names unchanged. To
    write to that file would let a link in a folder of a stranger overwrite any file of the user.

    Args:
        path: the file to write. It is missing or a regular file, which is replaced.
        mode: permissions of the file, before the umask is applied.

    Raises:
        InstaHideError: ``path`` is a link, a named pipe, a device or a folder; the folder cannot be
            created or written to; or the disk is full.
    """
    _require_replaceable(path, stat.S_ISREG, "a regular file")
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        partial = made
        granted = partial.stat().st_mode
        yield partial
        # The caller may have replaced the temporary file by another one.
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
def atomic_directory(path: Path) -> Iterator[Path]:
    """Like `atomic_write`, for a folder of files.

    Args:
        path: the folder to write. It is missing or an empty folder.

    Raises:
        InstaHideError: ``path`` is a link or no folder; the folder that will hold it cannot be
            created or written to; or the disk is full.
    """
    _require_replaceable(path, stat.S_ISDIR, "a folder")
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


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _require_replaceable(path: Path, right: Callable[[int], bool], kind: str) -> None:
    """Check that ``path`` is missing, or itself of the ``right`` type of file.

    Raises:
        InstaHideError: it is something else, or its folder cannot be searched.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(path, error) from error
    if right(mode):
        return
    if stat.S_ISLNK(mode):
        raise InstaHideError(
            f"Cannot write {path}: it is a symbolic link, which is neither replaced nor followed.",
            f"Name {kind} itself, or remove the link.",
        )
    if stat.S_ISDIR(mode):
        raise _unwritable(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    raise InstaHideError(
        f"Cannot write {path}: it exists and is not {kind}.",
        "Choose another path, or remove what is there.",
    )


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

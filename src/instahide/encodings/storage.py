"""Storage of encodings: a local folder, or a folder at a URL."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from instahide.data.cache import cache_folder, digest
from instahide.data.remote.downloads import require_disk_space
from instahide.data.remote.urls import Entry, Remote, connection_errors, local_path, plain_name
from instahide.errors import DamagedFileError, InstaHideError
from instahide.utils.atomic_write import atomic_write, open_regular
from instahide.utils.folder_lock import lock_or_refuse

_LOCK = ".lock"
#: Temporary files of `atomic_write` that a killed process leaves.
_PARTIAL = re.compile(r"\.(?:manifest|[0-9a-f]{16})-[a-z0-9_]{8}\.(?:json|safetensors)")


class Store(Protocol):
    """A folder of files that are written atomically.

    Names are those of visible files directly inside; all other names are refused.

    Raises:
        InstaHideError: in every method, if a name is not a plain file name, a file is missing, or
            reading or writing fails.
    """

    @property
    def location(self) -> str:
        """The path or URL as the user gave it, for messages."""
        ...

    def names(self) -> set[str]:
        """Names of the files directly inside; empty if the folder does not exist."""
        ...

    def size(self, name: str) -> int:
        """The size of a file in bytes."""
        ...

    def read(self, name: str, most: int) -> bytes:
        """The content of a file, which must have at most ``most`` bytes."""
        ...

    def local(self, name: str) -> Path:
        """The path of a local file to memory-map: the file itself, or a copy in the cache."""
        ...

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write to; its file becomes ``name`` if the block ends without error."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Lock out other writers during the block; fails if there is one already."""
        ...


def open_store(location: str | Path) -> Store:
    """The folder at a path or an fsspec URL; it need not exist yet.

    Raises:
        InstaHideError: the kind of URL is unknown, or its package is missing.
    """
    path = local_path(location)
    if path is not None:
        return LocalStore(str(location), path)
    return UrlStore(str(location), Remote.open(str(location)))


@dataclass(frozen=True)
class LocalStore:
    """A folder on a local or mounted file system."""

    location: str
    folder: Path

    def names(self) -> set[str]:
        """As `Store.names`."""
        with self._using():
            if not self.folder.is_dir():
                return set()
            return {
                path.name
                for path in self.folder.iterdir()
                if path.is_file() and path.name[0] != "."
            }

    def size(self, name: str) -> int:
        """As `Store.size`."""
        with self._using():
            return self.local(name).stat().st_size

    def read(self, name: str, most: int) -> bytes:
        """As `Store.read`."""
        with self._using(), open_regular(self.local(name)) as file:
            content = file.read(most + 1)
        _require_small(len(content), most, name, self.location)
        return content

    def local(self, name: str) -> Path:
        """As `Store.local`."""
        path = self._path(name)
        with self._using():
            if not path.is_file():
                raise _missing(name, self.location)
        return path

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """As `Store.writing`."""
        # Readable for others, if the umask and the folder permit it.
        with atomic_write(self._path(name), mode=0o666) as partial:
            yield partial

    def remove(self, name: str) -> None:
        """As `Store.remove`."""
        with self._using():
            self.local(name).unlink()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """As `Store.exclusive`. The lock ends with the process, however that ends."""
        with self._using():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
        try:
            with self._using():
                lock_or_refuse(lock, self.location)
                self._sweep()
            yield
        finally:
            os.close(lock)

    def _sweep(self) -> None:
        for path in self.folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        path = self.folder / plain_name(name, self.location)
        # `Path.resolve` would refuse a link to itself by an error of its own.
        real = Path(os.path.realpath(path))
        if path.is_symlink() and not real.is_relative_to(self.folder.resolve()):
            raise DamagedFileError(
                f"{name} in {self.location} is a link that leads out of the folder.",
                "Put the file itself there.",
            )
        return path

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InstaHideError(
                f"Cannot use {self.location} ({error.strerror or error}).",
                "Check the path and its permissions.",
            ) from error


@dataclass(frozen=True)
class UrlStore:
    """A folder in an object store or another file system of fsspec."""

    location: str
    remote: Remote

    def names(self) -> set[str]:
        """As `Store.names`."""
        return set(self.remote.files())

    def size(self, name: str) -> int:
        """As `Store.size`; the size at the last call of `names`, if known."""
        return self._entry(name).size

    def read(self, name: str, most: int) -> bytes:
        """As `Store.read`."""
        entry = self._entry(name)
        _require_small(entry.size, most, name, self.location)
        with connection_errors(self.location):
            content: bytes = self.remote.filesystem.cat_file(entry.path)
        # The file may have grown meanwhile.
        _require_small(len(content), most, name, self.location)
        return content

    def local(self, name: str) -> Path:
        """As `Store.local`."""
        entry = self._entry(name)
        copies = cache_folder() / "encodings" / digest(self.remote.url) / name
        copy = copies / entry.state
        if not copy.is_file():
            require_disk_space(entry.size, cache_folder())
            self.remote.download(entry, copy)
            for other in copies.iterdir():
                if other != copy and other.name[0] != ".":
                    other.unlink(missing_ok=True)
        return copy

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """As `Store.writing`."""
        target = self._target(name)
        with tempfile.TemporaryDirectory(prefix="instahide-") as folder:
            whole = Path(folder) / name
            with atomic_write(whole) as partial:
                yield partial
            with connection_errors(self.location):
                self.remote.filesystem.put_file(str(whole), target)

    def remove(self, name: str) -> None:
        """As `Store.remove`."""
        with connection_errors(self.location):
            self.remote.filesystem.rm_file(self._entry(name).path)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """As `Store.exclusive`. A process that is killed leaves its lock behind."""
        lock = f"{self.remote.path}/{_LOCK}"
        if not self._create(lock):
            raise InstaHideError(
                f"{self.location} is being written by another process, or by one that was killed.",
                f"Wait until it has ended; if nothing writes there, remove "
                f"{self.remote.url}/{_LOCK} and try again.",
            )
        try:
            # Some servers ignore that a file must be new, and would let every writer in.
            if self._create(lock):
                raise InstaHideError(
                    f"{self.location} cannot be locked: its server replaces a file that must be "
                    "new, so that two writers would mix their encodings.",
                    "Write to a local folder and copy that, or use a server with conditional "
                    "writes.",
                )
            yield
        finally:
            with connection_errors(self.location):
                self.remote.filesystem.rm_file(lock)

    def _create(self, path: str) -> bool:
        """Write an empty file; whether there was none before."""
        with connection_errors(self.location):
            try:
                self.remote.filesystem.pipe_file(path, b"", mode="create")
            except FileExistsError:
                return False
        return True

    def _entry(self, name: str) -> Entry:
        entry = self.remote.entry(plain_name(name, self.location))
        if entry is None:
            raise _missing(name, self.location)
        return entry

    def _target(self, name: str) -> str:
        return f"{self.remote.path}/{plain_name(name, self.location)}"


def _require_small(size: int, most: int, name: str, location: str) -> None:
    if size > most:
        raise DamagedFileError(
            f"{name} in {location} is too large to be a valid file of this kind.",
            "Ask the publisher for a new copy.",
        )


def _missing(name: str, location: str) -> DamagedFileError:
    return DamagedFileError(
        f"There is no {name} in {location}.", "Ask the publisher of the folder for a new copy."
    )

"""NumPy's files, read without trust: no pickles, and no memory before sizes are checked.

NumPy's own reader takes memory for whatever a header promises, and raises a dozen kinds of errors.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from instahide.data.readers.size_limits import require_plausible_size
from instahide.utils.atomic_write import open_regular

#: Kinds of numbers and texts that are read: bool, int, uint, float, bytes and str.
KINDS = "biufSU"
#: Axes of an array, at most.
MOST_AXES = 8
#: What NumPy compresses with, or not.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BLOCK = 1 << 20


class _Header(NamedTuple):
    shape: tuple[int, ...]
    column_major: bool
    dtype: np.dtype[np.generic]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def map_npy(path: Path) -> NDArray[np.generic]:
    """The array in an ``.npy`` file, memory-mapped and read-only.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or holds something else than numbers or texts.
    """
    with open_regular(path) as file:
        header = _read_header(file)
        offset = file.tell()
        if os.fstat(file.fileno()).st_size != offset + header.size:
            raise ValueError(f"its length is not that of an array of shape {header.shape}")
        order = "F" if header.column_major else "C"
        if not header.size:
            return np.empty(header.shape, header.dtype, order=order)  # type: ignore[call-overload,no-any-return]
        return np.memmap(file, header.dtype, "r", offset, header.shape, order)  # type: ignore[call-overload,no-any-return]


def load_npy(content: bytes) -> NDArray[np.generic]:
    """The array in the ``content`` of an ``.npy`` file, read-only and not copied.

    Raises:
        ValueError: as `map_npy`.
    """
    file = io.BytesIO(content)
    header = _read_header(file)
    if len(content) != file.tell() + header.size:
        raise ValueError(f"its length is not that of an array of shape {header.shape}")
    values = np.frombuffer(content, header.dtype, offset=file.tell())
    return values.reshape(header.shape, order="F" if header.column_major else "C")


class Npz(Mapping[str, NDArray[np.generic]]):
    """The arrays of an ``.npz`` file, each read when it is asked for. Use `open_npz`."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self._archive = archive
        self._file_bytes = file_bytes
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in self._members:
                raise ValueError(f"it holds {name!r} twice")
            self._members[name] = info

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        info = self._members[name]
        if info.compress_type not in _COMPRESSIONS:
            raise ValueError(f"{name!r} is compressed in a way that NumPy does not use")
        require_plausible_size(info.file_size, self._file_bytes)
        with self._archive.open(info) as stream:
            header = _read_header(stream)  # type: ignore[arg-type]
            if info.file_size != stream.tell() + header.size:
                raise ValueError(f"{name!r} has not the length of an array {header.shape}")
            values = np.empty(header.size // header.dtype.itemsize, header.dtype)
            _fill(values, stream)  # type: ignore[arg-type]
        return values.reshape(header.shape, order="F" if header.column_major else "C")


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """The arrays in ``path``, by name.

    Raises:
        Exception: whatever `zipfile` and `zlib` raise on damaged files; ValueError as `map_npy`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            yield Npz(archive, size)


def _read_header(file: BinaryIO) -> _Header:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} is for arrays of several fields")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        header = _Header(*read(file))
    except Exception as error:  # tokenize and ast raise their own kinds
        raise ValueError(f"its header is damaged ({type(error).__name__})") from error
    if header.dtype.kind not in KINDS or not header.dtype.itemsize:
        raise ValueError(f"it holds {header.dtype.name[:40]}, not plain numbers or texts")
    if len(header.shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in header.shape):
        raise ValueError("its shape is none of an array of images or labels")
    return header


def _fill(values: NDArray[np.generic], stream: BinaryIO) -> None:
    """Read all of ``stream`` into ``values``, and let it compare its checksum."""
    view = values.view(np.uint8).data
    at = 0
    while at < len(view):
        part = stream.read(min(_BLOCK, len(view) - at))
        if not part:
            raise ValueError("it ends too early")
        view[at : at + len(part)] = part
        at += len(part)
    if stream.read(1):
        raise ValueError("it is longer than it says")

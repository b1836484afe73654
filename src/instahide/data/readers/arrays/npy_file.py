"""Safe readers of ``.npy`` and ``.npz`` files: no pickles, and sizes are checked before allocation.

NumPy's own reader allocates whatever size a header states, and raises many kinds of errors.
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

#: Accepted kinds of dtypes: bool, int, uint, float, bytes and str.
KINDS = "biufSU"
#: Maximum number of axes of an array.
MOST_AXES = 8
#: The compression methods that NumPy writes.
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
    """Memory-map the array in an ``.npy`` file, read-only.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or its dtype is neither numeric nor text.
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
    """Read the array in the ``content`` of an ``.npy`` file, read-only and without a copy.

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
    """The arrays of an ``.npz`` file, each read on access. Use `open_npz` to open a file."""

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
            raise ValueError(f"{name!r} has a compression method that NumPy does not use")
        require_plausible_size(info.file_size, self._file_bytes)
        with self._archive.open(info) as stream:
            header = _read_header(stream)  # type: ignore[arg-type]
            if info.file_size != stream.tell() + header.size:
                raise ValueError(f"the length of {name!r} is not that of an array {header.shape}")
            values = np.empty(header.size // header.dtype.itemsize, header.dtype)
            _fill(values, stream)  # type: ignore[arg-type]
        return values.reshape(header.shape, order="F" if header.column_major else "C")


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Open the ``.npz`` file ``path`` as a mapping from names to arrays.

    Raises:
        Exception: any error of `zipfile` and `zlib` on damaged files; ValueError like `map_npy`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            yield Npz(archive, size)


def _read_header(file: BinaryIO) -> _Header:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version} is not supported")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        header = _Header(*read(file))
    except Exception as error:  # tokenize and ast raise their own kinds
        raise ValueError(f"its header is damaged ({type(error).__name__})") from error
    if header.dtype.kind not in KINDS or not header.dtype.itemsize:
        raise ValueError(f"it holds {header.dtype.name[:40]}, not plain numbers or texts")
    if len(header.shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in header.shape):
        raise ValueError("its shape is not that of an array of images or labels")
    return header


def _fill(values: NDArray[np.generic], stream: BinaryIO) -> None:
    """Read all of ``stream`` into ``values``; reading to the end verifies its checksum."""
    view = values.view(np.uint8).data
    at = 0
    while at < len(view):
        part = stream.read(min(_BLOCK, len(view) - at))
        if not part:
            raise ValueError("it ends too early")
        view[at : at + len(part)] = part
        at += len(part)
    if stream.read(1):
        raise ValueError("it is longer than its header states")

"""Reader of CIFAR-10 and CIFAR-100 in their published format, untrusted Python 2 pickles.

Nothing in the files is called, and NumPy never receives a state from a file: see `plain_pickle`.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from instahide.data.readers.arrays.plain_pickle import Stub, read_pickle
from instahide.data.readers.listing import entries
from instahide.data.readers.size_limits import LimitedReader, max_decoded_bytes
from instahide.data.splits import Split, make_split, table_from_arrays
from instahide.errors import DataError, failure_reason
from instahide.utils.atomic_write import open_regular, read_regular

TEN = frozenset({"batches.meta", "data_batch_1", "test_batch"})
HUNDRED = frozenset({"meta", "train", "test"})
SHAPE = (3, 32, 32)

#: Largest unpacked size of a set in bytes; CIFAR-100 has 186 million.
MOST_BYTES = 1 << 28
#: Largest number of members of an archive; the sets have nine.
MOST_MEMBERS = 100
#: The globals that their pickles name: the parts of NumPy's arrays.
_ARRAYS = frozenset(
    {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
)
_NAMES = _ARRAYS | {("numpy", "ndarray"), ("numpy", "dtype")}


def is_cifar_folder(folder: Path) -> bool:
    """Whether ``folder`` holds the files of CIFAR-10 or CIFAR-100."""
    names = {path.name for path in entries(folder) if path.is_file()}
    return names >= TEN or names >= HUNDRED


def read_cifar_folder(folder: Path) -> Split:
    """The split in ``cifar-10-batches-py`` or ``cifar-100-python``.

    Raises:
        InstaHideError: a file is damaged, malicious or unreadable.
    """
    files: dict[str, bytes] = {}
    try:
        for path in entries(folder):
            if path.is_file() and _is_part(path.name):
                left = MOST_BYTES - sum(map(len, files.values()))
                files[path.name] = read_regular(path, left)
    except OSError as error:
        raise _unusable(folder, error) from error
    return _read(files, folder)


def read_cifar_archive(path: Path) -> Split:
    """The split in ``cifar-10-python.tar.gz`` or ``cifar-100-python.tar.gz``, never unpacked.

    Raises:
        InstaHideError: the archive is damaged, malicious, or of another kind.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            packed = file.peek(2)[:2] == b"\x1f\x8b"  # type: ignore[attr-defined]
            source = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
            most = min(max_decoded_bytes(size), MOST_BYTES)
            files = _members(io.BufferedReader(LimitedReader(source, most)))
    except Exception as error:  # gzip, zlib and tarfile raise different errors on damaged files
        raise _unusable(path, error) from error
    return _read(files, path)


def _members(stream: io.BufferedReader) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for count, member in enumerate(archive):
            if count >= MOST_MEMBERS:
                raise ValueError(f"it has more than {MOST_MEMBERS} members")
            name = PurePosixPath(member.name).name
            if not (member.isreg() and _is_part(name)) or member.issparse():
                continue
            content = archive.extractfile(member)
            if content is not None:
                files[name] = content.read()
    return files


def _is_part(name: str) -> bool:
    return name in TEN | HUNDRED or name.startswith("data_batch_")


def _read(files: Mapping[str, bytes], source: Path) -> Split:
    try:
        if files.keys() >= TEN:
            batches = sorted(name for name in files if name.startswith("data_batch_"))
            return _split(files, batches, "test_batch", "batches.meta", b"label_names", b"labels")
        if files.keys() >= HUNDRED:
            return _split(files, ["train"], "test", "meta", b"fine_label_names", b"fine_labels")
        raise ValueError(f"it lacks {', '.join(sorted(TEN - files.keys()))}")
    except Exception as error:  # a malicious pickle can cause any error
        raise _unusable(source, error) from error


def _split(
    files: Mapping[str, bytes],
    batches: list[str],
    test: str,
    meta: str,
    names_key: bytes,
    labels_key: bytes,
) -> Split:
    names = _names(_load(files[meta])[names_key])
    train = [_batch(files[name], labels_key) for name in batches]
    pixels = np.concatenate([rows for rows, _ in train])
    labels = np.concatenate([numbers for _, numbers in train])
    return make_split(
        table_from_arrays(pixels, labels, names),
        table_from_arrays(*_batch(files[test], labels_key), names),
    )


def _batch(content: bytes, labels_key: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _load(content)
    return _pixels(batch[b"data"]), _numbers(batch[labels_key])


def _names(classes: object) -> tuple[str, ...]:
    if not isinstance(classes, list) or not all(type(name) is bytes for name in classes):
        raise ValueError("classes are not texts")
    return tuple(name.decode("utf-8") for name in classes)


def _numbers(labels: object) -> NDArray[np.int64]:
    if type(labels) is not list or not all(type(label) is int for label in labels):
        raise ValueError("labels are not whole numbers")
    return np.asarray(labels, np.int64)


def _pixels(array: object) -> NDArray[np.uint8]:
    if not isinstance(array, Stub) or array.name not in _ARRAYS:
        raise ValueError("images are not an array")
    if not isinstance(array.state, tuple) or len(array.state) != 5:
        raise ValueError("images have no state of an array")
    _, shape, kind, column_major, data = array.state
    if not isinstance(kind, Stub) or kind.name != ("numpy", "dtype"):
        raise ValueError("images have no type")
    if kind.arguments[:1] not in ((b"u1",), ("u1",)) or column_major or type(data) is not bytes:
        raise ValueError("images are not rows of bytes")
    if type(shape) is not tuple or len(shape) != 2 or shape[1] != math.prod(SHAPE):
        raise ValueError(f"images are not rows of {math.prod(SHAPE)} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape[0], *SHAPE)


def _load(content: bytes) -> Mapping[bytes, object]:
    values = read_pickle(content, _NAMES)
    if not isinstance(values, dict):
        raise ValueError("it holds no dict")
    return values


def _unusable(source: Path, error: Exception) -> DataError:
    return DataError(
        f"{source} is not a CIFAR-10 or CIFAR-100 python version that can be trusted "
        f"({failure_reason(error)}).",
        "Get it again from https://www.cs.toronto.edu/~kriz/cifar.html and compare its checksum.",
    )

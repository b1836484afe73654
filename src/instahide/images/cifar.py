"""CIFAR-10 and CIFAR-100 as their authors publish them: Python 2 pickles, read without trust.

Unpickling calls whatever the file names. Here it can name only three inert stand-ins, so that no
code but this module's runs, and NumPy never sees a state that the file made up.
"""

from __future__ import annotations

import io
import math
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError
from instahide.images.listing import entries
from instahide.images.splits import Split, labelled, paired

TEN = frozenset({"batches.meta", "data_batch_1", "test_batch"})
HUNDRED = frozenset({"meta", "train", "test"})
SHAPE = (3, 32, 32)


class _Array:
    """Stands for a pickled `numpy.ndarray`: keeps the state that the file gives it."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Type:
    """Stands for a pickled `numpy.dtype`: keeps its name."""

    def __init__(self, name: object = None, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and flags do not matter to single bytes."""


class _Reader(pickle.Unpickler):
    stand_ins: Mapping[tuple[str, str], type] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
    }

    def find_class(self, module: str, name: str) -> type:
        try:
            return self.stand_ins[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks to run {module}.{name}") from None


def is_cifar_folder(folder: Path) -> bool:
    """Whether ``folder`` holds the files of either set."""
    names = {path.name for path in entries(folder) if path.is_file()}
    return names >= TEN or names >= HUNDRED


def read_cifar_folder(folder: Path) -> Split:
    """The split in ``cifar-10-batches-py`` or ``cifar-100-python``.

    Raises:
        InstaHideError: a file is damaged, hostile or unreadable.
    """
    try:
        files = {path.name: path.read_bytes() for path in entries(folder) if path.is_file()}
    except OSError as error:
        raise _unusable(folder, error) from error
    return _read(files, folder)


def read_cifar_archive(path: Path) -> Split:
    """The split in ``cifar-10-python.tar.gz`` or ``cifar-100-python.tar.gz``, never unpacked.

    Raises:
        InstaHideError: it is damaged, hostile, or another archive.
    """
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    files[PurePosixPath(member.name).name] = content.read()
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise _unusable(path, error) from error
    return _read(files, path)


def _read(files: Mapping[str, bytes], source: Path) -> Split:
    try:
        if files.keys() >= TEN:
            batches = sorted(name for name in files if name.startswith("data_batch_"))
            return _split(files, batches, "test_batch", "batches.meta", b"label_names", b"labels")
        if files.keys() >= HUNDRED:
            return _split(files, ["train"], "test", "meta", b"fine_label_names", b"fine_labels")
        raise ValueError(f"it lacks {', '.join(sorted(TEN - files.keys()))}")
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        raise _unusable(source, error) from error


def _split(
    files: Mapping[str, bytes],
    batches: list[str],
    test: str,
    meta: str,
    names_key: bytes,
    labels_key: bytes,
) -> Split:
    names = tuple(name.decode("utf-8") for name in _load(files[meta])[names_key])
    train = [_batch(files[name], labels_key) for name in batches]
    pixels = np.concatenate([rows for rows, _ in train])
    labels = np.concatenate([numbers for _, numbers in train])
    return paired(
        labelled(pixels, labels, names), labelled(*_batch(files[test], labels_key), names)
    )


def _batch(content: bytes, labels_key: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _load(content)
    return _pixels(batch[b"data"]), np.asarray(batch[labels_key], np.int64)


def _pixels(array: _Array) -> NDArray[np.uint8]:
    _, shape, kind, fortran, data = array.state
    if kind.name not in (b"u1", "u1") or fortran or not isinstance(data, bytes):
        raise ValueError("images are not rows of bytes")
    if len(shape) != 2 or shape[1] != math.prod(SHAPE):
        raise ValueError(f"images of shape {shape} are not rows of {math.prod(SHAPE)} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape[0], *SHAPE)


def _load(content: bytes) -> Any:
    return _Reader(io.BytesIO(content), encoding="bytes").load()


def _unusable(source: Path, error: Exception) -> InstaHideError:
    return InstaHideError(
        f"{source} is not a CIFAR-10 or CIFAR-100 python version that can be trusted ({error}).",
        "Get it again from https://www.cs.toronto.edu/~kriz/cifar.html and compare its checksum.",
    )

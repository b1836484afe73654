"""IDX files, the format of the MNIST family (http://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from instahide.data.readers.listing import entries
from instahide.data.readers.size_limits import LimitedReader, require_plausible_size
from instahide.data.splits import Split, make_split, table_from_arrays
from instahide.data.table import ImageTable
from instahide.errors import DataError, failure_reason
from instahide.utils.atomic_write import open_regular

UNSIGNED_BYTE = 0x08


def idx_files(folder: Path) -> list[Path]:
    """The image files of a folder in MNIST's layout; training images first."""
    found = {
        path.name.removesuffix(".gz"): path
        # An unpacked file, which sorts first, is preferred to a packed one.
        for path in reversed(entries(folder))
        if "images" in path.name and "idx3" in path.name and path.is_file()
    }
    return sorted(found.values(), key=lambda path: ("train" not in path.name, path.name))


def read_idx(images: Path, classes: tuple[str, ...] | None = None) -> ImageTable:
    """The images of one file with the labels from the file next to it.

    Raises:
        InstaHideError: there are no labels, or a file is damaged.
    """
    labels = _labels_beside(images)
    return table_from_arrays(read_array(images, 3), read_array(labels, 1), classes)


def read_idx_folder(folder: Path, classes: tuple[str, ...] | None = None) -> ImageTable | Split:
    """The split of the four files in ``folder``, or the table of the two files.

    Raises:
        DataError: a file is missing or damaged, or there are several data sets.
    """
    files = idx_files(folder)
    if len(files) > 2 or (len(files) == 2 and "train" in files[1].name):
        raise DataError(
            f"{folder} holds several data sets: {', '.join(path.name for path in files)}.",
            "Name one file of images, or put each data set into a folder of its own.",
        )
    tables = [read_idx(path, classes) for path in files]
    return make_split(*tables) if len(tables) == 2 else tables[0]


def read_array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in an IDX file, with or without gzip.

    Raises:
        DataError: the file is damaged, or has another type or number of dimensions.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix == ".gz":
                return _read(cast(BinaryIO, gzip.GzipFile(fileobj=file)), dimensions, size)
            return _read(file, dimensions, size)
    except Exception as error:  # zlib and gzip raise different errors on damaged files
        raise DataError(
            f"{path} is not a readable IDX file ({failure_reason(error)}).",
            "Get it again from its source.",
        ) from error


def _read(file: BinaryIO, dimensions: int, file_bytes: int) -> NDArray[np.uint8]:
    zero, kind, count = struct.unpack(">HBB", file.read(4))
    if (zero, kind, count) != (0, UNSIGNED_BYTE, dimensions):
        raise ValueError(f"not an IDX file of {dimensions}-dimensional unsigned bytes")
    shape = struct.unpack(f">{count}I", file.read(4 * count))
    size = math.prod(shape)
    require_plausible_size(size, file_bytes)
    data = io.BufferedReader(LimitedReader(file, size)).read()
    if len(data) != size:
        raise ValueError(f"it says {shape} but is not of that length")
    return np.frombuffer(data, np.uint8).reshape(shape)


def labels_names(name: str) -> tuple[str, str]:
    """Names of files that may hold the labels of the image file ``name``."""
    plain = name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    return plain, f"{plain}.gz"


def _labels_beside(images: Path) -> Path:
    names = labels_names(images.name)
    for candidate in names:
        path = images.with_name(candidate)
        if path.is_file() and path != images:
            return path
    raise DataError(f"{images} has no labels beside it.", f"Put {names[0]} into the same folder.")

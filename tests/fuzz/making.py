"""What seeds are made of."""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from instahide.data import ImageTable
from tests.fuzz.mutation import Seed

Read = Callable[[Path], object]


class Reader(NamedTuple):
    """What is read: the file that is changed, the seeds of it, and how it is read.

    Attributes:
        file: its name; others of a seed lie beside it.
        seeds: files that are accepted.
        read: reads it in a folder.
        leaves: files and folders that reading may leave behind.
    """

    file: str
    seeds: Callable[[], list[Seed]]
    read: Read
    leaves: tuple[str, ...] = ()


def new_folder() -> Path:
    """A folder that is gone when the process ends."""
    path = tempfile.mkdtemp(prefix="seeds-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def some_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def small_table(count: int = 6, side: int = 8) -> ImageTable:
    return ImageTable.from_arrays(some_bytes(count, side, side, 3), np.arange(count) % 2)


def written(save: Callable[[io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    save(out)
    return out.getvalue()


def npy_bytes(values: np.ndarray) -> bytes:
    return written(lambda out: np.save(out, values, allow_pickle=False))

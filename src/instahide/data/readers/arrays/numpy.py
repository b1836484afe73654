"""NumPy files: ``.npz`` with images and labels, or ``.npy`` with a file of labels beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.data.class_names import require_class_names
from instahide.data.readers.arrays.npy_file import map_npy, open_npz
from instahide.data.splits import Split, make_split, table_from_arrays
from instahide.data.table import ImageTable
from instahide.errors import MOST_REASON, DataError, InstaHideError, failure_reason

#: (images, labels) as they are named by NumPy users, Keras and MedMNIST.
WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels"))
TRAIN = (("x_train", "y_train"), ("train_images", "train_labels"))
TEST = (("x_test", "y_test"), ("test_images", "test_labels"))

#: Names of arrays that a message repeats.
MOST_NAMES = 20


def read_npz(path: Path) -> ImageTable | Split:
    """The images of an ``.npz`` file; a split if it has training and test images.

    Labels are class numbers, or the names of classes, which are then numbered in sorted order.

    Raises:
        DataError: damaged file, pickled objects inside, far larger than its file, or no images
            and labels.
    """
    try:
        with open_npz(path) as arrays:
            train, test = _pick(arrays, TRAIN), _pick(arrays, TEST)
            if train and test:
                return make_split(*_labelled(train, test))
            if whole := _pick(arrays, WHOLE) or train:
                return _labelled(whole)[0]
            names = ", ".join(list(arrays)[:MOST_NAMES]) or "nothing"
    except InstaHideError:
        raise
    except Exception as error:  # zip, zlib and NumPy each raise their own on damaged files
        raise _unreadable(path, error) from error
    raise DataError(
        f"{path} holds {names[:MOST_REASON]}, but no images with labels.",
        "Name the arrays images and labels, or x_train, y_train, x_test and y_test.",
    )


def read_npy(path: Path) -> ImageTable:
    """Memory-mapped images of ``path``, with the labels of the file beside it.

    The labels of ``train_images.npy`` are in ``train_labels.npy``, those of ``x.npy`` in ``y.npy``.

    Raises:
        DataError: damaged file, pickled objects inside, or no file of labels.
    """
    labels_path = path.with_name(labels_name(path.name))
    if labels_path == path or not labels_path.is_file():
        raise DataError(
            f"There is no file of labels next to {path}.",
            "Name the two images.npy and labels.npy, or save both in one .npz file.",
        )
    images, labels = _load(path), _load(labels_path)
    try:
        return _labelled((images, labels))[0]
    except InstaHideError:
        raise
    except Exception as error:  # such as texts that are not UTF-8
        raise _unreadable(labels_path, error) from error


def _labelled(*parts: tuple[NDArray[np.generic], NDArray[np.generic]]) -> list[ImageTable]:
    """Tables of images with labels, all of the same classes where these have names."""
    labels = [_texts(numbers) for _, numbers in parts]
    if not any(each.dtype.kind == "U" for each in labels):
        return [table_from_arrays(images, numbers) for images, numbers in parts]
    if not all(each.dtype.kind == "U" for each in labels):
        raise DataError(
            "Some labels are names and some are numbers.", "Give all labels in one form."
        )
    names = np.unique(np.concatenate([each.reshape(-1) for each in labels]))
    classes = require_class_names(names.tolist())
    return [
        table_from_arrays(images, np.searchsorted(names, each).astype(np.int64), classes)
        for (images, _), each in zip(parts, labels, strict=True)
    ]


def _texts(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Labels as they are, or as str where they are texts in bytes."""
    return np.char.decode(labels.astype(np.bytes_), "utf-8") if labels.dtype.kind == "S" else labels


def _pick(
    arrays: Mapping[str, NDArray[np.generic]], names: tuple[tuple[str, str], ...]
) -> tuple[NDArray[np.generic], NDArray[np.generic]] | None:
    for images, labels in names:
        if images in arrays and labels in arrays:
            return arrays[images], arrays[labels]
    return None


def labels_name(name: str) -> str:
    """The file that the labels of the ``.npy`` file ``name`` are in."""
    return name.replace("images", "labels") if "images" in name else name.replace("x", "y", 1)


def _load(path: Path) -> NDArray[np.generic]:
    try:
        return map_npy(path)
    except Exception as error:  # NumPy raises several kinds on damaged headers
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is not a readable NumPy file ({failure_reason(error)}).",
        "Save plain uint8 images and whole-number labels with numpy.save or numpy.savez.",
    )

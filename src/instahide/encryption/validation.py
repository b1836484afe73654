"""Checks that a scheme fits private and public images, made before anything is encoded."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageSource, ImageTable
from instahide.data.image_source import normalized_as, task_of
from instahide.data.labels import Task, least_columns, require_task
from instahide.data.normalization.channel_statistics import ChannelStatistics
from instahide.data.normalization.normalization import (
    Normalization,
    require_plausible_scale,
    require_sign_balance,
    require_similar_spread,
)
from instahide.data.pixels import EIGHT_BIT, extremes
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.sampling._duplicates_numba import equal_images
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, SchemeError


def require_compatible(
    scheme: Scheme, images: ImageSource, public: ImageSource | None, augmentation: Augmentation
) -> None:
    """Check that ``scheme`` can encrypt ``images`` with ``public`` images and would hide them.

    Raises:
        InstaHideError: there are too few classes or images; public images are missing, unexpected,
            too few or of another shape; or normalized values are such that nothing would be hidden.
    """
    task = task_of(images)
    require_label_mode(scheme, task)
    if len(images.classes) < least_columns(task):
        raise DataError(
            f"There is {len(images.classes)} class, so there is nothing to learn.",
            "Give images of at least two classes.",
        )
    if scheme.private_k > len(images):
        raise SchemeError(
            f"A mix needs {scheme.private_k} private images; there are {len(images)}.",
            "Lower k, or use more images.",
        )
    require_public(scheme, public)
    require_range(scheme, images.normalization)
    for table in (images, public):
        _require_pixels_in_range(table)
    if public is not None:
        require_same_shape(public.shape, images.shape)
        _require_same_kind(images, public)
    if augmentation and not isinstance(images, ImageTable):
        raise DataError(
            "The encoder cannot crop and flip the images of a data set with its own transforms.",
            "Put the crop and the flip into its transform, before it normalizes.",
        )
    _require_values(scheme, images, public)


def require_label_mode(scheme: Scheme, task: Task) -> None:
    """Check that mixed labels of ``task`` mean what a network is to learn.

    With public images, ``soft`` labels sum to less than 1. A share of a class still says which
    classes are in a mix; but a finding that all private images show would be called improbable, and
    a measured value would be too small.

    Raises:
        DataError: there is no such task.
        SchemeError: the scheme mixes in public images under soft labels, and the task is not
            single-label.
    """
    require_task(task)
    if scheme.public_k and scheme.label_mode == "soft" and task != "single-label":
        raise SchemeError(
            f"With public images, soft labels of a {task} task are too small: they are multiplied "
            "by the private images' share of the mix.",
            "Use `label_mode='renormalised'`.",
        )


def require_public(scheme: Scheme, public: ImageSource | None) -> None:
    """Check that there are enough public images for ``scheme``, and none if it uses none.

    Raises:
        SchemeError: public images are missing, unexpected or too few.
    """
    if public is None and scheme.public_k:
        raise SchemeError(
            f"The scheme mixes in {scheme.public_k} public images, but there are none.",
            "Pass a public pool (`public=`), or use an inside-dataset scheme.",
        )
    if public is not None and not scheme.public_k:
        raise SchemeError(
            "There are public images, but the scheme uses none.",
            "Leave them out, or use a cross-dataset scheme.",
        )
    if public is not None and scheme.public_k > len(public):
        raise SchemeError(
            f"A mix needs {scheme.public_k} public images; the pool has {len(public)}.",
            "Make a larger pool with `instahide public`.",
        )


def require_range(scheme: Scheme, normalization: Normalization | None) -> None:
    """Check that the range of private images is known if ``scheme`` adds noise.

    Raises:
        DataError: the scheme adds noise, and the normalization of the images is unknown.
    """
    if scheme.noise and normalization is None:
        raise DataError(
            "The mean and std of the private images' transform are unknown, so the guarantee of "
            "noise cannot be computed.",
            "Pass the transform's mean= and std=; values outside their range are then clipped.",
        )


def _require_pixels_in_range(images: ImageSource | None) -> None:
    """Check that the pixels of a table are finite and within its range.

    The range of encodings follows from it, and so does what noise guarantees.
    """
    if not isinstance(images, ImageTable) or not len(images):
        return
    if images.pixels.dtype == np.uint8 and images.value_range == EIGHT_BIT:
        return
    low, high = extremes(images.pixels)
    # Not the other way round: comparisons with NaN are false.
    if not (images.value_range[0] <= low and high <= images.value_range[1]):
        raise DataError(
            f"Pixels run from {low:g} to {high:g}, but the table's value range is "
            f"{images.value_range[0]:g} to {images.value_range[1]:g}.",
            "Make the table with `ImageTable.from_arrays(..., value_range=)`, which clips them.",
        )


def require_same_shape(public: tuple[int, ...], private: tuple[int, ...]) -> None:
    """Check that public images have the shape (C, H, W) of the private ones.

    Raises:
        DataError: the shapes differ.
    """
    if public != private:
        raise DataError(
            f"Public images are {public}, private ones {private} (channels, height, width).",
            "Make a pool of the private images' shape with `instahide public`.",
        )


def _require_same_kind(images: ImageSource, public: ImageSource) -> None:
    if isinstance(images, ImageTable) and not isinstance(public, ImageTable):
        raise DataError(
            "Private images are a table, but public ones are a data set with its own transforms.",
            "Wrap both in `ImageDataset`, so that both are normalized in the same way.",
        )
    if isinstance(public, ImageTable) and images.normalization is None:
        raise DataError(
            "The mean and std of the private images' transform are unknown, so public images "
            "cannot be normalized in the same way.",
            "Pass the mean and std of the transform to `ImageDataset`.",
        )


def _require_values(scheme: Scheme, images: ImageSource, public: ImageSource | None) -> None:
    """Check that a mask hides the normalized values, and that private and public ones match."""
    statistics = ChannelStatistics.of_images(images)
    others = None if public is None else ChannelStatistics.of_images(_alike(public, images))
    if not all(each.finite for each in (statistics, others) if each is not None):
        raise DataError(
            "Some images have values that are NaN or infinite.",
            "Look at the files, and at what a transform divides by.",
        )
    # A few queries may all be bright; public images then give the mixes both signs.
    query = scheme.min_self_coefficient > 0
    if isinstance(images, ImageTable):
        require_plausible_scale(statistics)
    if others is not None:
        require_similar_spread(statistics, others, query=query)
    if scheme.mask:
        require_sign_balance(
            statistics + others if query and others is not None else statistics,
            "Normalize to mean 0: leave mean and std out to have them measured.",
        )


def _alike(public: ImageSource, images: ImageSource) -> ImageSource:
    """``public`` under the normalization of ``images``, if that is known."""
    if isinstance(public, ImageTable) and images.normalization is not None:
        return normalized_as(public, images.normalization)
    return public


def require_different(
    private: tuple[NDArray[np.generic], NDArray[np.int64]],
    public: tuple[NDArray[np.generic], NDArray[np.int64]],
) -> None:
    """Check that no mix contains an image twice, because its encoding could show that image.

    Images of a single value are ignored: they hold nothing to hide, and transforms may produce
    several of them.

    Args:
        private: images (m, C, H, W), and (n, p) the positions of each mix's images in them.
        public: likewise.

    Raises:
        DataError: a mix contains an image twice.
    """
    (images, places), (others, chosen) = private, public
    flat = (array.reshape(len(array), math.prod(array.shape[1:])) for array in (images, others))
    values, public_values = map(np.ascontiguousarray, flat)
    if equal_images(values, places, public_values, chosen) >= 0:
        raise DataError(
            "Two images of a mix are equal, so its encoding would show that image. They were not "
            "detected as duplicates, because random transforms change them between fetches.",
            "Remove duplicates from the data set, or let its transforms use the random generators "
            "of Python, NumPy or PyTorch.",
        )

"""Whether a scheme, private and public images go together: checked before anything is encoded."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageSource, ImageTable
from instahide.data.normalization.channel_statistics import ChannelStatistics
from instahide.data.normalization.normalization import (
    Normalization,
    require_plausible_scale,
    require_sign_balance,
    require_similar_spread,
)
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.sampling._duplicates_numba import equal_images
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError, SchemeError


def require_compatible(
    scheme: Scheme, images: ImageSource, public: ImageSource | None, augmentation: Augmentation
) -> None:
    """Check that ``scheme`` can encrypt ``images`` with ``public`` ones, and would hide something.

    Raises:
        InstaHideError: it cannot; the message says what to change.
    """
    if len(images.classes) < 2:
        raise DataError(
            f"There is {len(images.classes)} class, so there is nothing to learn.",
            "Give images of at least two classes.",
        )
    if scheme.private_k > len(images):
        raise SchemeError(
            f"A mix of {scheme.private_k} private images needs as many; there are {len(images)}.",
            "Lower k, or give more images.",
        )
    require_public(scheme, public)
    require_range(scheme, images.normalization)
    if public is not None:
        require_same_shape(public.shape, images.shape)
        _require_same_kind(images, public)
    if augmentation and not isinstance(images, ImageTable):
        raise DataError(
            "A data set with transforms of its own is not cropped and flipped by the encoder.",
            "Put the crop and the flip into its transform, before it normalizes.",
        )
    _require_values(scheme, images, public)


def require_public(scheme: Scheme, public: ImageSource | None) -> None:
    """Check that there are public images if, and only if, ``scheme`` mixes some in, and enough.

    Raises:
        SchemeError: that is not so.
    """
    if public is None and scheme.public_k:
        raise SchemeError(
            f"The scheme mixes in {scheme.public_k} public images, but there are none.",
            "Give a public pool (`public=`), or use an inside-dataset scheme.",
        )
    if public is not None and not scheme.public_k:
        raise SchemeError(
            "Public images are given, but the scheme mixes none in.",
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
            "Private images are normalized by a transform whose mean and std are not known, so "
            "that nobody can say what noise on them guarantees.",
            "Give mean= and std= as the transform has them; what lies beyond is then clipped.",
        )


def require_same_shape(public: tuple[int, ...], private: tuple[int, ...]) -> None:
    """Check that public images have the shape (C, H, W) of the private ones.

    Raises:
        DataError: they have not.
    """
    if public != private:
        raise DataError(
            f"Public images are {public}, private ones {private} (channels, height, width).",
            "Make a pool of the private images' shape with `instahide public`.",
        )


def _require_same_kind(images: ImageSource, public: ImageSource) -> None:
    if isinstance(images, ImageTable) and not isinstance(public, ImageTable):
        raise DataError(
            "Private images are a table, public ones a data set with transforms of its own.",
            "Wrap both in `ImageDataset`, so that both are normalized alike.",
        )
    if isinstance(public, ImageTable) and images.normalization is None:
        raise DataError(
            "Private images are normalized by a transform whose mean and std are not known, so "
            "that public images cannot be normalized alike.",
            "Give `ImageDataset` the mean and std that its transform uses.",
        )


def _require_values(scheme: Scheme, images: ImageSource, public: ImageSource | None) -> None:
    """Check what the normalized values say: the mask hides them, and no image drowns another."""
    seen = ChannelStatistics.of_images(images)
    others = None if public is None else ChannelStatistics.of_images(_alike(public, images))
    # Few queries may all be bright: then it is the public images that give mixes both signs.
    query = scheme.min_self_coefficient > 0
    if isinstance(images, ImageTable):
        require_plausible_scale(seen)
    if others is not None:
        require_similar_spread(seen, others, query=query)
    if scheme.mask:
        require_sign_balance(
            seen + others if query and others is not None else seen,
            "Normalize to mean 0: leave mean and std out to have them measured.",
        )


def _alike(public: ImageSource, images: ImageSource) -> ImageSource:
    """Public pixels under the private images' normalization."""
    if isinstance(public, ImageTable) and images.normalization is not None:
        return public.normalized_like(images.normalization)
    return public


def require_different(
    private: tuple[NDArray[np.float32], NDArray[np.int64]],
    public: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    """Check that no mix holds an image twice: its encoding would be that image, but for the signs.

    Images of a single value are passed over: transforms may bring several to one, and there is
    nothing in them to hide.

    Args:
        private: images (m, C, H, W), and (n, p) those of each mix.
        public: likewise.

    Raises:
        DataError: one does.
    """
    (images, places), (others, chosen) = private, public
    flat = (array.reshape(len(array), math.prod(array.shape[1:])) for array in (images, others))
    values, public_values = map(np.ascontiguousarray, flat)
    if equal_images(values, places, public_values, chosen) >= 0:
        raise DataError(
            "Two images of a mix are equal, value for value, so that its encoding would show that "
            "image. They were not found to be the same picture before, as they come from random "
            "transforms or change from one fetch to the next.",
            "Remove duplicates from the data set, or let its transforms draw from the random "
            "generators of Python, NumPy or PyTorch.",
        )

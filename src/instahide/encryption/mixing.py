"""The steps from one-time keys and images to encodings, which every encoder shares."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data import ImageSource, ImageTable, PhotoCrops
from instahide.data.image_source import normalized_as
from instahide.data.normalization.normalization import Normalization
from instahide.data.pixels import clip_pixels
from instahide.encryption.kernels import cpu
from instahide.encryption.keys import Block, KeyStream, OneTimeKeys, Purpose
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError

#: Crops drawn in each epoch if the public images are `PhotoCrops`.
CROPS_PER_EPOCH = 10_000
#: Values for which noise is drawn at a time; drawing takes about 50 bytes of memory per value.
NOISE_AT_ONCE = 1 << 20

#: Pixels (m, C, H, W), and (n, j) the positions in them of the j images of each of n mixes.
Fetched: TypeAlias = tuple[NDArray[np.generic], NDArray[np.int64]]


class PublicImages:
    """The public images of an encoder: a pool, photographs with new crops in each epoch, or none.

    Args:
        source: the pool, or the photographs.
        private: the private images. The pixels of a table get the type and the value range of
            theirs.

    Attributes:
        images: the pool or the current crops; None before the first `resample` of photographs.
        private: the private images if they are a table, whose rows are pixels; else None.
    """

    def __init__(
        self, source: ImageSource | PhotoCrops | None, private: ImageSource | None = None
    ) -> None:
        self._photos = source if isinstance(source, PhotoCrops) else None
        self.private = private if isinstance(private, ImageTable) else None
        self.images = None if isinstance(source, PhotoCrops) else self._like_private(source)

    def __len__(self) -> int:
        return 0 if self.images is None else len(self.images)

    def resample(self, stream: KeyStream) -> bool:
        """Draw new crops if the source is photographs; returns whether it is."""
        if self._photos is None:
            return False
        numbers = sampler.uniforms(stream.next_block(), Purpose.CROPS, 4 * CROPS_PER_EPOCH)
        crops = ImageTable.from_arrays(self._photos.draw(numbers.reshape(-1, 4)))
        self.images = self._like_private(crops)
        return True

    def _like_private(self, source: ImageSource | None) -> ImageSource | None:
        if isinstance(source, ImageTable) and self.private is not None:
            return source.with_pixels_like(self.private)
        return source

    def rows(
        self,
        chosen: NDArray[np.int64],
        private: NDArray[np.generic],
        like: Normalization | None,
        *,
        normalized: bool,
    ) -> Fetched:
        """The images ``chosen`` (n, j), in the form of the ``private`` ones.

        Args:
            chosen: numbers of public images.
            private: private images.
            like: how they are normalized.
            normalized: whether their values are normalized already, by a transform; else they are
                pixels, and so are the public ones.

        Returns:
            Values (m, C, H, W), and (n, j) the positions of the chosen images in them.

        Raises:
            DataError: public images have pixels of another type or range.
        """
        if self.images is None:
            return private[:0], chosen
        if isinstance(self.images, ImageTable) and normalized:
            unique, positions = np.unique(chosen, return_inverse=True)
            pool = normalized_as(self.images, _known(like))
            return pool.normalized(unique), positions.reshape(chosen.shape)
        rows = self.images.rows(chosen)
        if rows.pixels.dtype != private.dtype or (
            isinstance(self.images, ImageTable)
            and like is not None
            and like.value_range != self.images.value_range
        ):
            raise DataError(
                f"Public images have pixels of type {rows.pixels.dtype}, or of another range, "
                f"private ones of type {private.dtype}.",
                "Give a pool of the same type and range, or a table of private images, whose type "
                "and range it gets.",
            )
        return rows.pixels, rows.positions


def mix(
    keys: OneTimeKeys,
    private: Fetched,
    public: Fetched,
    normalization: tuple[NDArray[np.float32], NDArray[np.float32]],
    out: Tensor,
    black: float = 0,
) -> None:
    """Fill ``out`` (n, C, H, W) or (n, C, D, H, W) with the encodings under ``keys``.

    A volume is mixed as C * D planes: each of its planes moves as an image would.

    Args:
        keys: of n mixes; ``keys.partners`` is not used.
        private: pixels, and (n, private_k) the positions of each mix's images in them.
        public: likewise (n, k - private_k), of the same type.
        normalization: scale (C,) and bias (C,): ``pixel * scale + bias``.
        out: float32, float16 or bfloat16, contiguous, on the CPU.
        black: the pixel that comes in where an image is moved.
    """
    positions = np.concatenate([private[1], public[1]], axis=1)
    fetched = OneTimeKeys(positions, keys.coefficients, keys.masks, keys.moves)
    depth = math.prod(out.shape[2:-2])
    scale, bias = (np.repeat(each, depth) for each in normalization)
    cpu.encode(
        as_planes(private[0]),
        as_planes(public[0]),
        fetched,
        private[1].shape[1],
        scale,
        bias,
        out.flatten(1, -3),
        black,
    )


def as_planes(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Volumes (N, C, D, H, W) as (N, C * D, H, W); images as they are. Nothing is copied."""
    return pixels.reshape(len(pixels), math.prod(pixels.shape[1:-2]), *pixels.shape[-2:])


@contextmanager
def with_noise(block: Block, scheme: Scheme, out: Tensor) -> Generator[Tensor]:
    """A buffer for the mixes of ``out`` (n, C, H, W); noise is added when the ``with`` block ends.

    Noise is added after the mask. Before the mask would be equivalent, because its distribution is
    symmetric. Mixes are stored as float32 and noise is added in float64, so only the sum is
    rounded.
    """
    if not scheme.noise:
        yield out
        return
    mixes = torch.empty_like(out, dtype=torch.float32)
    yield mixes
    step = max(1, NOISE_AT_ONCE // max(1, mixes[:1].numel()))
    for start in range(0, len(out), step):
        part = mixes[start : start + step]
        noise = torch.from_numpy(sampler.noise(block, tuple(part.shape), scheme.noise))
        out[start : start + step] = noise.to(part.device).add_(part)


def clip_to_range(
    private: NDArray[np.generic], like: Normalization | None, *, normalized: bool
) -> NDArray[np.generic]:
    """``private`` (m, C, H, W), clipped to the range that the accounting of noise assumes.

    The range is 0 to 1 before the normalization ``like``.

    Args:
        private: pixels or normalized values.
        like: how they are normalized.
        normalized: whether they are normalized already.

    Raises:
        DataError: a value is NaN.
    """
    known = _known(like)
    if not normalized:
        return clip_pixels(private, known.value_range)
    if np.isnan(private.min(initial=0)):
        raise DataError("A private image has values that are NaN.", "Look at its file.")
    per_channel = (-1, *(1 for _ in private.shape[2:]))
    mean, std = (
        np.asarray(moment, np.float32).reshape(per_channel) for moment in (known.mean, known.std)
    )
    return np.clip(private.astype(np.float32, copy=False), -mean / std, (1 - mean) / std)


def _known(normalization: Normalization | None) -> Normalization:
    if normalization is None:
        raise DataError(
            "The normalization of the private images is unknown.", "Pass its mean and std."
        )
    return normalization


def label_weights(scheme: Scheme, keys: OneTimeKeys) -> NDArray[np.float32]:
    """(n, private_k) weights of the labels of the private images, by the scheme's label mode."""
    weights = keys.coefficients[:, : scheme.private_k]
    if scheme.label_mode == "renormalised":
        weights = weights / weights.sum(axis=1, keepdims=True)
    return weights


def soft_labels(weights: NDArray[np.float32], labels: NDArray[np.generic], count: int) -> Tensor:
    """(n, count) float32 weighted sums of the labels of each mix.

    Args:
        weights: (n, p) of the p private images.
        labels: (n, p) class numbers, or (n, p, count) soft labels, of these images.
        count: number of classes.
    """
    if labels.ndim == 3:
        return torch.from_numpy(np.einsum("np,npc->nc", weights, labels.astype(np.float32)))
    places = np.asarray(labels, np.int64) + count * np.arange(len(labels))[:, None]
    mixed = np.bincount(places.reshape(-1), weights.reshape(-1), len(labels) * count)
    return torch.from_numpy(mixed.reshape(len(labels), count).astype(np.float32))

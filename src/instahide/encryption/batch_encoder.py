"""Encryption of batches that the caller fetches: draw which images to fetch, then encode them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from instahide.data import ImageSource, ImageTable, PhotoCrops
from instahide.data.duplicates.content_hash import Hashes
from instahide.data.normalization.normalization import Normalization
from instahide.encryption.base_encoder import BaseEncoder
from instahide.encryption.buffer_pool import allocate
from instahide.encryption.encoder import Encoded
from instahide.encryption.exposure import Exposure, ExposureView
from instahide.encryption.keys import Block, KeyStream, OneTimeKeys
from instahide.encryption.mixing import Fetched, label_weights, soft_labels, with_noise
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.sampling import sampler
from instahide.encryption.sampling.partner_pools import (
    ContentIds,
    PartnerPools,
    known_partner_pools,
    require_enough_images,
)
from instahide.encryption.scheme import Scheme
from instahide.encryption.validation import (
    require_different,
    require_public,
    require_range,
    require_same_shape,
)
from instahide.errors import DataError


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class PendingBatch:
    """SECRET: a batch whose mixes are drawn and counted, and whose images must still be fetched.

    Attributes:
        targets: (n,) the images to encrypt, in order; an image may occur twice.
        extra_partners: (j,) the other images that the mixes need, in ascending order: the order
            does not reveal which mix needs which.
        positions: (n, private_k) indices of the images of each mix in ``targets`` followed by
            ``extra_partners``.
        partners: (n, k) as `OneTimeKeys.partners`.
        coefficients: (n, k) float32.
        block: key bytes from which masks and noise are drawn.
    """

    targets: NDArray[np.int64]
    extra_partners: NDArray[np.int64]
    positions: NDArray[np.int64]
    partners: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    block: Block

    def __repr__(self) -> str:
        return f"PendingBatch({len(self.targets)} hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A pending batch cannot be copied or pickled: its keys are used once.")


class BatchEncoder(BaseEncoder):
    """Encrypts batches of images that the caller fetches and normalizes, each under new keys.

    Safe to share between threads. A pickled or forked copy starts a key stream of its own.

    Args:
        scheme: how to encrypt.
        exposure: counts the encodings of each private image, and may limit them.
        public: the public images of a scheme that mixes some in.
        moments: the normalization of the private images, which is applied to public images that
            are a table or photographs; None if unknown.
        keys: a stream to draw from; a new one by default.
        participant: a name in the keys of a new stream, as for `Encoder`.

    Attributes:
        normalized: the ``moments``; None if unknown.

    Raises:
        InstaHideError: the public images do not fit the scheme; or ``moments`` is None, and the
            public images must be normalized or the scheme adds noise.
    """

    def __init__(
        self,
        scheme: Scheme,
        exposure: Exposure,
        public: ImageSource | PhotoCrops | None = None,
        *,
        moments: Normalization | None = None,
        keys: KeyStream | None = None,
        participant: str = "",
    ) -> None:
        super().__init__(scheme, exposure, public, keys, participant)
        require_public(scheme, self._public.images)
        require_range(scheme, moments)
        self.normalized = moments
        _require_moments(self._public.images, moments)
        count = exposure.images
        unknown = np.zeros((count, 2), np.uint64)
        self._known = ContentIds(np.arange(count), unknown, unknown)
        #: The rows and public images of the last partner pools, and these pools.
        self._drawn_from: tuple[
            NDArray[np.int64] | None, ImageSource | None, PartnerPools | None
        ] = (None, None, None)

    def identify(self, hashes: Hashes) -> None:
        """Set which private images show the same picture, so that no mix contains a picture twice.

        Images of one group of the exposure count as one picture. Call it at the start of an epoch,
        in all processes that share an exposure.

        Args:
            hashes: (N, 2, 2) of the values of each image, and of the 8-bit pixels from which they
                were computed; zeros if a hash is unknown.
        """
        values, pixels = hashes[:, 0], hashes[:, 1]
        self._known = ContentIds(self.exposure.identify(values), values, pixels)
        self._drawn_from = None, None, None

    def draw(self, indices: NDArray[np.int64], pool: NDArray[np.int64]) -> PendingBatch:
        """Draw the mixes that encrypt the private images ``indices`` (n,), and count them.

        Args:
            indices: images to encrypt; all in ``pool``.
            pool: (N,) distinct images from which partners are drawn, in ascending order.

        Returns:
            A batch for all ``indices``, or for those before the first image at its limit.

        Raises:
            ExposureLimitError: the first image is at its limit.
            InstaHideError: there are fewer distinct pictures than a mix needs.
        """
        block = self._keys.next_block()
        chosen, coefficients = sampler.mixes(
            block,
            self.scheme,
            np.searchsorted(pool, indices),
            public=len(self._public),
            exposure=ExposureView(self.exposure, pool),
            pools=self._pools(pool),
        )
        private = slice(0, self.scheme.private_k)
        chosen[:, private] = pool[chosen[:, private]]
        own = indices[: len(chosen)]
        others = np.setdiff1d(chosen[:, private], own)
        places = _positions_of(chosen[:, private], np.concatenate([own, others]))
        return PendingBatch(own, others, places, chosen, coefficients, block)

    def encode(
        self,
        batch: PendingBatch,
        images: NDArray[np.float32],
        labels: NDArray[np.generic],
        classes: int,
        *,
        dtype: torch.dtype = torch.float32,
        pin_memory: bool = False,
    ) -> Encoded:
        """Encrypt a ``batch`` returned by `draw`.

        Args:
            batch: the pending batch; it can be used once.
            images: (m, C, H, W) or (m, C, D, H, W), its ``targets`` followed by its
                ``extra_partners``, normalized.
            labels: labels of ``images``: (m,) class numbers; or (m, classes) soft labels, findings
                or values. Of findings and values, public images need a renormalised label mode: see
                `validation.require_label_mode`.
            classes: the number of classes or columns.
            dtype: of the encodings: float32, float16 or bfloat16.
            pin_memory: put the encodings into page-locked memory, for a copy to a GPU.

        Raises:
            InstaHideError: the public images have another shape; a mix would contain an image
                twice, although `identify` did not say so; or the exposure accounts for more
                noise than the scheme adds.
        """
        channels, *_ = shape = images.shape[1:]
        std = None if self.normalized is None else self.normalized.std
        rate = mu_squared_rate(self.scheme, shape, std)
        self.exposure.require_rate(rate)
        keys = self._one_time_keys(batch, shape)
        as_they_are = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        out = allocate((len(batch.targets), *shape), dtype, pin_memory=pin_memory)
        with with_noise(batch.block, self.scheme, out) as mixes:
            self._mix(keys, (images, batch.positions), self.normalized, as_they_are, mixes)
        weights = label_weights(self.scheme, keys)
        return Encoded(out, soft_labels(weights, labels[batch.positions], classes))

    def __repr__(self) -> str:
        return f"BatchEncoder({self.scheme})"

    def _require_mixable(self, private: Fetched, public: Fetched) -> None:
        if public[1].size:
            require_same_shape(public[0].shape[1:], private[0].shape[1:])
        require_different(private, public)

    def _pools(self, pool: NDArray[np.int64]) -> PartnerPools | None:
        """The pools from which partners are drawn, computed once per epoch."""
        rows, public, pools = self._drawn_from
        if rows is not pool or public is not self._public.images:
            ids, hashes, pixels = self._known
            _, numbers = np.unique(ids[pool], return_inverse=True)
            known = ContentIds(numbers, hashes[pool], pixels[pool])
            pools = known_partner_pools(known, self._public.images)
            require_enough_images(self.scheme, pools)
            self._drawn_from = pool, self._public.images, pools
        return pools

    def _one_time_keys(self, batch: PendingBatch, shape: tuple[int, ...]) -> OneTimeKeys:
        masks = sampler.masks(batch.block, len(batch.targets), shape)
        return OneTimeKeys(
            batch.partners, batch.coefficients, masks if self.scheme.mask else None, None
        )


def _require_moments(public: ImageSource | None, moments: Normalization | None) -> None:
    """Check that public pixels can be normalized as the private images are."""
    if not isinstance(public, ImageTable):
        return
    if moments is None:
        raise DataError(
            "The mean and std of the private images' transform are unknown, so public images "
            "cannot be normalized in the same way.",
            "Pass the transform's mean= and std=.",
        )
    channels = public.shape[0]
    if {len(moments.mean), len(moments.std)} != {channels}:
        raise DataError(
            f"Public images have {channels} channels, but there are {len(moments.mean)} means and "
            f"{len(moments.std)} standard deviations.",
            "Pass one mean and one std for each channel of the public images.",
        )


def _positions_of(chosen: NDArray[np.int64], fetched: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, p) positions of ``chosen`` (n, p) in ``fetched`` (m,), which begins with column 0."""
    unique, first = np.unique(fetched, return_index=True)
    places = first[np.searchsorted(unique, chosen)]
    # An image that is encrypted twice was fetched twice: each encryption uses its own copy.
    places[:, 0] = np.arange(len(places))
    return places

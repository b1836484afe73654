"""What an encryption does to an image, step by step, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels import reference
from instahide.encryption.keys import KeyStream
from instahide.encryption.sampling import sampler
from instahide.encryption.sampling.partner_pools import partner_pools, require_enough_images
from instahide.encryption.scheme import Scheme

#: What is to be said under every such picture.
CAPTION = "The keys of this picture were made for it alone. The sign is hidden; |encoding| is not."


@dataclass(frozen=True, eq=False, repr=False)
class Illustration:
    """The steps of n encryptions, all float, normalized.

    Attributes:
        parts: (n, k, C, H, W) the image itself and its partners.
        coefficients: (n, k) float32, their weights.
        mixes: (n, C, H, W) their weighted sums.
        negated: (n, C, H, W) bool, where the mask turns the sign.
        encodings: (n, C, H, W) the mixes under their masks, with noise where the scheme has it.
    """

    parts: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    mixes: NDArray[np.float64]
    negated: NDArray[np.bool]
    encodings: NDArray[np.float64]


def illustrate(
    scheme: Scheme, images: ImageTable, public: ImageTable | None, indices: NDArray[np.int64]
) -> Illustration:
    """Encrypt the private images ``indices`` (n,) under keys made for the picture alone.

    The picture shows its partners, so its encodings hide nothing. No encoder ever uses these keys.
    """
    pool = images.subset(slice(0, 0)) if public is None else public.normalized_like(images)
    pools = partner_pools(images.content_ids, images, public)
    require_enough_images(scheme, pools)
    block = KeyStream("illustration").next_block()
    keys = sampler.one_time_keys(
        block,
        scheme,
        indices,
        public=len(pool),
        shape=images.shape,
        augmentation=Augmentation(),
        exposure=Exposure(len(images)),
        pools=pools,
    )
    unmasked = sampler.OneTimeKeys(keys.partners, keys.coefficients, None, None)
    own, others = keys.partners[:, : scheme.private_k], keys.partners[:, scheme.private_k :]
    parts = np.concatenate(
        [
            table.normalized(rows.reshape(-1)).reshape(*rows.shape, *images.shape)
            for table, rows in ((images, own), (pool, others))
        ],
        axis=1,
    )
    mixes, encodings = (
        reference.encode(
            images.pixels, pool.pixels, used, scheme.private_k, images.scale, images.bias
        )
        for used in (unmasked, keys)
    )
    if scheme.noise:
        encodings = encodings + sampler.noise(block, encodings.shape, scheme.noise)
    turned = (
        np.zeros(mixes.shape, bool)
        if keys.masks is None
        else reference.mask_bits(keys.masks, images.shape[1:])
    )
    return Illustration(parts, keys.coefficients, mixes, turned, encodings)

"""Encodings whose keys are known: to look at, and to score attacks on them.

The keys are drawn for one call and returned with the encodings, which therefore hide nothing and
must never be published. No encoder that publishes uses these keys.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.data.labels import Labels
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels import reference
from instahide.encryption.keys import KEY_BYTES, KeyStream, OneTimeKeys
from instahide.encryption.mixing import as_planes
from instahide.encryption.sampling import sampler
from instahide.encryption.sampling.partner_pools import partner_pools, require_enough_images
from instahide.encryption.scheme import Scheme
from instahide.utils.row_indices import row_indices


@dataclass(frozen=True, eq=False, repr=False)
class KnownKeyEncodings:
    """SECRET: n encodings of an `Encoder` together with their keys.

    Attributes:
        encoded: encoded images and soft labels.
        partners: (n, k) int64 rows, private ones first, beginning with the encrypted image.
        coefficients: (n, k) float32.
        negated: (n, C, H, W) bool, whether the mask flips the sign.
        moves: (n, k, 3) int8: shift down, shift right, and 1 if mirrored, of each image of a mix;
            None without augmentation.
    """

    encoded: Encoded
    partners: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    negated: NDArray[np.bool]
    moves: NDArray[np.int8] | None = None


def encode_with_known_keys(
    scheme: Scheme,
    images: ImageTable,
    public: ImageTable | None,
    indices: NDArray[np.int64],
    augmentation: Augmentation | None = None,
    *,
    root: bytes | None = None,
) -> KnownKeyEncodings:
    """Encrypt the private images ``indices`` (n,) and keep the keys.

    The encodings come from a real `Encoder`. Its keys are drawn a second time, from the same
    throw-away root: ``root`` (32 bytes), which is never used again, or new bytes.

    Raises:
        InstaHideError: as `Encoder` does.
    """
    indices = row_indices(indices, len(images))
    root = root or secrets.token_bytes(KEY_BYTES)
    pool = None if public is None else public.with_pixels_like(images).normalized_like(images)
    encoder = Encoder(
        scheme, images, pool, keys=KeyStream("rehearsal", fixed_key=root), augmentation=augmentation
    )
    encoded = encoder.encode(indices)
    keys = sampler.one_time_keys(
        KeyStream("rehearsal", fixed_key=root).next_block(),
        scheme,
        indices,
        public=0 if public is None else len(public),
        shape=images.shape,
        augmentation=encoder.augmentation,
        exposure=Exposure(len(images)),
        pools=encoder.pools,
    )
    negated = _negated(keys, tuple(encoded.images.shape))
    return KnownKeyEncodings(encoded, keys.partners, keys.coefficients, negated, keys.moves)


def _negated(keys: OneTimeKeys, shape: tuple[int, ...]) -> NDArray[np.bool]:
    """Whether the mask flips the sign of each value of encodings of ``shape``."""
    if keys.masks is None:
        return np.zeros(shape, bool)
    # Of a volume, a mask is drawn for each plane.
    return reference.mask_bits(keys.masks, shape[-2:]).reshape(shape)


#: Caption of every such picture.
CAPTION = (
    "The mix is the sum of the images, each times its coefficient. The encoding is the mix with "
    "random signs, and |encoding| is its absolute value, which the signs do not hide. The keys are "
    "used for this picture only."
)
#: Caption of a picture without a mask.
UNMASKED = "There is no mask, so the encoding is the mix itself. It hides nothing."


@dataclass(frozen=True, eq=False, repr=False)
class Illustration:
    """The steps of n encryptions, in normalized units.

    Attributes:
        parts: (n, k, C, H, W) the encrypted image and its partners.
        labels: (n, private_k) class numbers or (n, private_k, columns) targets, of private parts.
        coefficients: (n, k) float32 of ``parts``.
        mixes: (n, C, H, W) weighted sums of ``parts``.
        negated: (n, C, H, W) bool, whether the mask flips the sign.
        encodings: (n, C, H, W) the masked mixes, with noise if the scheme adds it.
    """

    parts: NDArray[np.float32]
    labels: Labels
    coefficients: NDArray[np.float32]
    mixes: NDArray[np.float64]
    negated: NDArray[np.bool]
    encodings: NDArray[np.float64]


def _parts(
    scheme: Scheme, images: ImageTable, pool: ImageTable, keys: OneTimeKeys
) -> NDArray[np.float32]:
    """(n, k, C, H, W) the normalized images of each mix."""
    own, others = keys.partners[:, : scheme.private_k], keys.partners[:, scheme.private_k :]
    return np.concatenate(
        [
            table.normalized(rows.reshape(-1)).reshape(*rows.shape, *images.shape)
            for table, rows in ((images, own), (pool, others))
        ],
        axis=1,
    )


def illustrate(
    scheme: Scheme, images: ImageTable, public: ImageTable | None, indices: NDArray[np.int64]
) -> Illustration:
    """Encrypt the private images ``indices`` (n,) under keys that are used for a picture only.

    The picture shows the partners, so these encodings hide nothing. No encoder uses these keys.
    """
    pool = images.subset(slice(0, 0)) if public is None else public.with_pixels_like(images)
    pool = pool.normalized_like(images)
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
    parts = _parts(scheme, images, pool, keys)
    shape = (len(indices), *images.shape)
    depth = math.prod(images.shape[1:-2])
    mixes, encodings = (
        reference.encode(
            as_planes(images.pixels),
            as_planes(pool.pixels),
            used,
            scheme.private_k,
            np.repeat(images.scale, depth),
            np.repeat(images.bias, depth),
        ).reshape(shape)
        for used in (replace(keys, masks=None), keys)
    )
    if scheme.noise:
        encodings = encodings + sampler.noise(block, encodings.shape, scheme.noise)
    negated = _negated(keys, shape)
    labels = images.labels[keys.partners[:, : scheme.private_k]]
    return Illustration(parts, labels, keys.coefficients, mixes, negated, encodings)

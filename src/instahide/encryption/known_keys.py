"""Encodings whose keys are known, so that attacks on them can be scored.

The keys are drawn for one call and returned with the encodings, which therefore hide nothing and
must never be published. No encoder that publishes uses these keys.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels.reference import mask_bits
from instahide.encryption.keys import KEY_BYTES, KeyStream
from instahide.encryption.sampling import sampler
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
    """

    encoded: Encoded
    partners: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    negated: NDArray[np.bool]


def encode_with_known_keys(
    scheme: Scheme, images: ImageTable, public: ImageTable | None, indices: NDArray[np.int64]
) -> KnownKeyEncodings:
    """Encrypt the private images ``indices`` (n,) and keep the keys.

    The encodings come from a real `Encoder`. Its keys are drawn a second time, from the same
    throw-away root.

    Raises:
        InstaHideError: as `Encoder` does.
    """
    indices = row_indices(indices, len(images))
    root = secrets.token_bytes(KEY_BYTES)
    pool = None if public is None else public.normalized_like(images)
    encoder = Encoder(scheme, images, pool, keys=KeyStream("rehearsal", fixed_key=root))
    encoded = encoder.encode(indices)
    keys = sampler.one_time_keys(
        KeyStream("rehearsal", fixed_key=root).next_block(),
        scheme,
        indices,
        public=0 if public is None else len(public),
        shape=images.shape,
        augmentation=Augmentation(),
        exposure=Exposure(len(images)),
        pools=encoder.pools,
    )
    size = tuple(encoded.images.shape)
    turned = np.zeros(size, bool) if keys.masks is None else mask_bits(keys.masks, size[2:])
    return KnownKeyEncodings(encoded, keys.partners, keys.coefficients, turned)

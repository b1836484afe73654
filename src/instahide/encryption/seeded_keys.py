"""Encodings whose keys follow from a public seed: for practice sets only, they hide nothing.

Everybody who has the seed and the images makes the same encodings again, bit for bit, on any number
of threads. Partners, masks and the order of the encodings are integers, drawn with AES. Mixes are
computed in float64, one multiplication or addition at a time, whose results IEEE 754 determines,
and rounded to float32. Only coefficients depend on the processor and its mathematical library: they
come from logarithms in float64, whose last bits may differ, and are rounded to
float32, which hides that difference in all but fewer than one in 100 million. Whoever makes a set
again therefore compares hashes.

A contract of imports (pyproject.toml) allows one caller: practice sets of built-in images. Private
images never come here.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoded
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels import reference
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.known_keys import KnownKeyEncodings
from instahide.encryption.mixing import label_weights, soft_labels
from instahide.encryption.sampling import sampler
from instahide.encryption.sampling.partner_pools import partner_pools, require_enough_images
from instahide.encryption.scheme import Scheme
from instahide.encryption.validation import require_compatible
from instahide.errors import SchemeError

#: Mixes that are computed at a time.
BLOCK = 256
#: Names of the two streams that a seed gives.
_KEYS, _ORDER = "practice", "practice order"


def encode_with_seeded_keys(
    scheme: Scheme, images: ImageTable, public: ImageTable | None, copies: int, seed: int
) -> KnownKeyEncodings:
    """Encode each of ``images`` ``copies`` times, in random order, under keys of a public ``seed``.

    Args:
        scheme: how to encode, without noise.
        images: images that everybody has, in uint8.
        public: the public pool, if the scheme uses one; it gets the normalization of ``images``.
        copies: encodings of each image.
        seed: any number from 0; 32 bytes of SHA-256 over it are the root of the keys.

    Raises:
        SchemeError: the scheme adds noise, whose values would differ between processors.
        InstaHideError: as `Encoder` does.
    """
    if scheme.noise:
        raise SchemeError(
            "Noise cannot be made again bit for bit on other processors.",
            "Use a scheme without noise.",
        )
    pool = None if public is None else public.with_pixels_like(images).normalized_like(images)
    require_compatible(scheme, images, pool, Augmentation())
    root = hashlib.sha256(f"instahide practice set 1: {seed}".encode()).digest()
    rows = np.tile(np.arange(len(images)), copies)
    order = KeyStream(_ORDER, fixed_key=root).next_block()
    rows = rows[sampler.permutation(order, len(rows))]
    keys = _keys(KeyStream(_KEYS, fixed_key=root), scheme, images, pool, rows)
    negated = np.zeros((len(rows), *images.shape), bool)
    if keys.masks is not None:
        negated = reference.mask_bits(keys.masks, images.shape[-2:])
    mixes = _mixes(scheme, images, pool, keys)
    np.negative(mixes, out=mixes, where=negated)
    classes = images.labels[keys.partners[:, : scheme.private_k]]
    labels = soft_labels(label_weights(scheme, keys), classes, len(images.classes))
    encoded = Encoded(torch.from_numpy(mixes), labels)
    return KnownKeyEncodings(encoded, keys.partners, keys.coefficients, negated)


def _keys(
    stream: KeyStream,
    scheme: Scheme,
    images: ImageTable,
    pool: ImageTable | None,
    rows: NDArray[np.int64],
) -> OneTimeKeys:
    pools = partner_pools(images.content_ids, images, pool)
    require_enough_images(scheme, pools)
    return sampler.one_time_keys(
        stream.next_block(),
        scheme,
        rows,
        public=0 if pool is None else len(pool),
        shape=images.shape,
        augmentation=Augmentation(),
        exposure=Exposure(len(images)),
        pools=pools,
    )


def _mixes(
    scheme: Scheme, images: ImageTable, pool: ImageTable | None, keys: OneTimeKeys
) -> NDArray[np.float32]:
    """(n, C, H, W) weighted sums of normalized images."""
    scale, bias = (part[:, None, None].astype(np.float64) for part in (images.scale, images.bias))
    mixes = np.empty((len(keys.partners), *images.shape), np.float32)
    for start in range(0, len(mixes), BLOCK):
        rows = slice(start, start + BLOCK)
        mixed = np.zeros((len(mixes[rows]), *images.shape))
        for column in range(scheme.k):
            table = images if column < scheme.private_k or pool is None else pool
            pixels = table.pixels[keys.partners[rows, column]].astype(np.float64)
            part = pixels * scale + bias
            # Not by einsum, which fuses multiplication and addition on some processors.
            mixed += part * keys.coefficients[rows, column, None, None, None].astype(np.float64)
        mixes[rows] = mixed
    return mixes

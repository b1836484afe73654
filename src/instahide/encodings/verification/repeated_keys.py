"""Detection of repeated mixes: equal |x| and labels mean that a key was used twice.

Mixes of two images are an exception. They differ by one coefficient only, and of many mixes of the
same two images, some have the same coefficient by chance, to the precision of storage. Their masks
differ even then, so that their signs are compared, too; without a mask, they are not compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from instahide.encodings.shards import magnitudes
from instahide.encryption.scheme import Scheme

#: Encodings with fewer values are not compared: mixes may agree by chance.
LEAST_VALUES = 32


def fingerprints(images: Tensor, labels: Tensor, scheme: Scheme) -> NDArray[np.uint64]:
    """(m,) hashes of the mixes behind stored ``images`` (n, C, H, W) and ``labels``.

    Constant encodings are ignored: mixes of empty images are equal whatever the keys.
    """
    seen = magnitudes(images)
    comparable = scheme.k > 2 or (scheme.k == 2 and scheme.mask)
    if not comparable or seen[0].numel() < LEAST_VALUES:
        return np.empty(0, np.uint64)
    flat = (seen == seen[..., :1, :1]).flatten(1).all(dim=1)
    if scheme.k == 2:
        seen = images
    rows = zip(seen[~flat].numpy(), labels[~flat].numpy(), strict=True)
    digests = [_digest(image.tobytes() + label.tobytes()) for image, label in rows]
    return np.frombuffer(b"".join(digests), np.uint64)


def find_repeated_mixes(found: Iterable[NDArray[np.uint64]]) -> int:
    """The number of `fingerprints` that occurred before."""
    together = np.concatenate([np.empty(0, np.uint64), *found])
    return len(together) - len(np.unique(together))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()

"""Encodings that show one mix: the same |x| and label twice means that a key was used twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from instahide.encodings.shards import magnitudes

#: Encodings of fewer values are not compared: two mixes may look alike by chance.
LEAST_VALUES = 32


def fingerprints(images: Tensor, labels: Tensor) -> NDArray[np.uint64]:
    """(m,) hashes of the mixes that stored ``images`` (n, C, H, W) and ``labels`` show.

    Flat encodings are left out: mixes of empty images look alike whatever the keys.
    """
    seen = magnitudes(images)
    if seen[0].numel() < LEAST_VALUES:
        return np.empty(0, np.uint64)
    flat = (seen == seen[..., :1, :1]).flatten(1).all(dim=1)
    rows = zip(seen[~flat].numpy(), labels[~flat].numpy(), strict=True)
    digests = [_digest(image.tobytes() + label.tobytes()) for image, label in rows]
    return np.frombuffer(b"".join(digests), np.uint64)


def find_repeated_mixes(found: Iterable[NDArray[np.uint64]]) -> int:
    """How many of the `fingerprints` are there before."""
    together = np.concatenate([np.empty(0, np.uint64), *found])
    return len(together) - len(np.unique(together))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()

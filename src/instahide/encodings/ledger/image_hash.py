"""Salted hashes of images, which reveal nothing without the image or a guess of it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from instahide.utils.parallel import with_progress

SALT_BYTES = 32
#: Stored bytes of a hash: among 10^9 images, the probability of a collision is below 10^-20.
HASH_BYTES = 16
#: Keys that are hashed between updates of the progress bar.
_CHUNK = 1000


def _digest(salted: hashlib._Hash, key: NDArray[np.uint64]) -> bytes:
    salted.update(key.data)
    return salted.digest()[:HASH_BYTES]


def salted_keys(
    keys: NDArray[np.uint64], salt: bytes, *, progress: bool = False
) -> NDArray[np.bytes_]:
    """(N, m) of `HASH_BYTES` bytes: truncated SHA-256 of the salt and each of ``keys`` (N, m, 2).

    A key of zeros means unknown, and gives an empty hash.

    Args:
        keys: result of `data.image_source.keys_of`.
        salt: salt of the ledger; another salt gives unrelated hashes.
        progress: show a bar.
    """
    salted = hashlib.sha256(salt + b"image")
    words = np.ascontiguousarray(keys, "<u8").reshape(-1, 2)
    starts = range(0, len(words), _CHUNK)
    parts = [
        b"".join([_digest(salted.copy(), key) for key in words[start : start + _CHUNK]])
        for start in with_progress(starts, "Looking images up", len(starts), progress)
    ]
    hashes = np.frombuffer(b"".join(parts), f"S{HASH_BYTES}").copy()
    hashes[~words.any(axis=1)] = b""
    return hashes.reshape(keys.shape[:2])

"""Which image is which: salted hashes that give nothing away without the image or a guess of it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from instahide.utils.parallel import with_progress

SALT_BYTES = 32
#: Bytes that are kept of a hash: two of 10^9 images collide with a chance below 10^-20.
HASH_BYTES = 16
#: Keys that are hashed between two moves of the progress bar.
_CHUNK = 1000


def _digest(salted: hashlib._Hash, key: NDArray[np.uint64]) -> bytes:
    salted.update(key.data)
    return salted.digest()[:HASH_BYTES]


def salted_keys(
    keys: NDArray[np.uint64], salt: bytes, *, progress: bool = False
) -> NDArray[np.bytes_]:
    """(N, m) of `HASH_BYTES` bytes: SHA-256 of the salt and of each of ``keys`` (N, m, 2), cut off.

    A key of zeros is not known, and gives an empty hash.

    Args:
        keys: as `data.image_source.keys_of` gives them.
        salt: of the ledger; under another salt all hashes are others.
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

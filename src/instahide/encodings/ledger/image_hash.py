"""Which image is which: salted hashes that give nothing away without the image or a guess of it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.utils.parallel import parallel_map, with_progress

SALT_BYTES = 32
#: Bytes that are kept of a hash: two of 10^9 images collide with a chance below 10^-20.
HASH_BYTES = 16
#: Images that are hashed at a time.
_CHUNK = 1000


def pixel_hashes(images: ImageTable, salt: bytes, *, progress: bool = False) -> NDArray[np.bytes_]:
    """(N,) hashes that ledgers of version 3 know images by: of the salt, the shape and the pixels.

    Needed only where a ledger was begun by such a release.

    Args:
        images: memory-mapped ones are read a chunk at a time.
        salt: of the ledger; under another salt all hashes are others.
        progress: show a bar.
    """
    # Messages of one length under a secret prefix: HMAC would hash twice for nothing.
    salted = hashlib.sha256(salt + np.asarray(images.shape, "<u4").tobytes())

    def hashed(start: int) -> bytes:
        block = np.ascontiguousarray(images.pixels[start : start + _CHUNK])
        return b"".join([_digest(salted.copy(), pixels) for pixels in block])

    starts = range(0, len(images), _CHUNK)
    chunks = parallel_map(hashed, with_progress(starts, "Looking images up", len(starts), progress))
    return np.frombuffer(b"".join(chunks), f"S{HASH_BYTES}")


def _digest(salted: hashlib._Hash, pixels: NDArray[np.generic]) -> bytes:
    # Beyond 2 KiB this lets go of the interpreter's lock.
    salted.update(pixels.data)
    return salted.digest()[:HASH_BYTES]


def salted_keys(
    keys: NDArray[np.uint64], salt: bytes, *, progress: bool = False
) -> NDArray[np.bytes_]:
    """(N, m) of `HASH_BYTES` bytes: SHA-256 of the salt and of each of ``keys`` (N, m, 2), cut off.

    A key of zeros is not known, and gives an empty hash.

    Args:
        keys: as `images.protocol.keys_of` gives them.
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

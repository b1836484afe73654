"""Which image is which: salted hashes that give nothing away without the image or a guess of it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from instahide.images import ImageTable
from instahide.images.parallel import in_order, tracked

SALT_BYTES = 32
#: Bytes that are kept of a hash: two of 10^9 images collide with a chance below 10^-20.
HASH_BYTES = 16
#: Images that a thread hashes at a time.
_CHUNK = 1000


def image_hashes(images: ImageTable, salt: bytes, *, progress: bool = False) -> NDArray[np.bytes_]:
    """(N,) of `HASH_BYTES` bytes: SHA-256 of the salt, the shape and the pixels, cut off.

    Equal pixels of equal shape have equal hashes, whatever their file, label or place.

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
    chunks = in_order(hashed, tracked(starts, "Looking images up", len(starts), progress))
    return np.frombuffer(b"".join(chunks), f"S{HASH_BYTES}")


def _digest(salted: hashlib._Hash, pixels: NDArray[np.uint8]) -> bytes:
    # Beyond 2 KiB this lets go of the interpreter's lock.
    salted.update(pixels.data)
    return salted.digest()[:HASH_BYTES]


def looked_up(
    hashes: NDArray[np.bytes_], known: NDArray[np.bytes_]
) -> tuple[NDArray[np.int64], NDArray[np.bytes_]]:
    """Where each hash stands among the ``known`` and, after those, among the new ones.

    Args:
        hashes: (N,), any of them more than once.
        known: (M,), all different, in any order.

    Returns:
        (N,) numbers below M + L, and the L new hashes, sorted: their order says nothing about
        the order of the images.
    """
    unique, inverse = np.unique(hashes, return_inverse=True)
    order = np.argsort(known)
    places = np.searchsorted(known, unique, sorter=order)
    inside = places < len(known)
    numbers = np.full(len(unique), -1, np.int64)
    numbers[inside] = order[places[inside]]
    numbers[inside] = np.where(known[numbers[inside]] == unique[inside], numbers[inside], -1)
    new = numbers < 0
    numbers[new] = len(known) + np.arange(np.count_nonzero(new))
    return numbers[inverse], unique[new]

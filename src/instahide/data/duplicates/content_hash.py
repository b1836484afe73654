"""Hashes of image content, by which rows with the same picture are found.

A picture is identified by a 128-bit hash of its values. XXH3 is fast, but not cryptographic: two
pictures crafted to collide are treated as one, which can only increase counts. A grey picture has
the same hash in one channel as in three equal channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

#: Hashes are (N, 2): two 64-bit words. Two zeros mean an unknown hash.
Hashes = NDArray[np.uint64]

#: Number of rows that are made contiguous at a time.
CHUNK = 1024
#: Number of values of a row that `sampled_keys` reads.
SAMPLED = 64
#: Number of rows whose keys are computed at a time.
KEYED = 1 << 16


def content_hashes(pixels: NDArray[np.generic]) -> Hashes:
    """(N, 2) hashes of ``pixels`` (N, C, H, W) of any type; memory-mapped pixels are read in parts.

    Pictures with equal values, type, height and width have equal hashes.
    """
    found = np.empty((len(pixels), 2), np.uint64)
    for start in range(0, len(pixels), CHUNK):
        block = pixels[start : start + CHUNK]
        grey = _is_grey(block)
        part = found[start : start + CHUNK]
        part[~grey] = _hashed(block[~grey] if grey.any() else block)
        part[grey] = _hashed(block[grey, :1])
    return found


def sampled_keys(pixels: NDArray[np.generic]) -> NDArray[np.uint64]:
    """(N,) numbers that equal rows of ``pixels`` (N, C, H, W) have in common, and few others.

    They depend on a sample of the values, which takes a fraction of the time of a hash.
    """
    keys = [_keys(pixels[at : at + KEYED]) for at in range(0, len(pixels), KEYED)]
    return np.concatenate([np.empty(0, np.uint64), *keys])


def _keys(pixels: NDArray[np.generic]) -> NDArray[np.uint64]:
    rows = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    step = max(1, rows.shape[1] // SAMPLED)
    # Of other types than bytes, as the bytes of the values.
    sampled = np.ascontiguousarray(rows[:, step // 2 :: step][:, :SAMPLED])
    if sampled.dtype.kind == "f":
        sampled = sampled + 0  # -0.0 becomes 0.0, as in `content_hashes`.
    sampled = sampled.view(np.uint8)
    padded = np.zeros((len(rows), -(-sampled.shape[1] // 8) * 8), np.uint8)
    padded[:, : sampled.shape[1]] = sampled
    words = padded.view(np.uint64)
    words ^= words >> np.uint64(29)
    # Odd numbers without a pattern, from multiples of the golden ratio.
    places = np.arange(1, words.shape[1] + 1, dtype=np.uint64)
    words *= places * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    return np.asarray(words.sum(axis=1, dtype=np.uint64))


def duplicate_row_ids(pixels: NDArray[np.generic]) -> NDArray[np.int64]:
    """(N,) numbers as `duplicate_ids` gives them, equal for equal rows of ``pixels`` (N, C, H, W).

    Only rows whose `sampled_keys` occur more than once are hashed in full.
    """
    keys = sampled_keys(pixels)
    ordered = np.sort(keys)
    several = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(several):
        return np.arange(len(pixels))
    return duplicate_ids(hashes_where(pixels, np.isin(keys, several)))


def hashes_where(pixels: NDArray[np.generic], mask: NDArray[np.bool]) -> Hashes:
    """(N, 2) `content_hashes` of those of ``pixels`` where ``mask`` (N,) is set; else zeros."""
    hashes = np.zeros((len(pixels), 2), np.uint64)
    rows = np.flatnonzero(mask)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        hashes[part] = content_hashes(pixels[part])
    return hashes


def content_hash(channels: tuple[bytes, ...], height: int, width: int) -> bytes:
    """The hash of one 8-bit image in 16 bytes, equal to that of `content_hashes`.

    Args:
        channels: the pixels of each channel, row by row.
        height: height of the image.
        width: width of the image.
    """
    if len(channels) > 1 and all(channel == channels[0] for channel in channels[1:]):
        channels = channels[:1]
    whole = xxhash.xxh3_128(seed=_seed((len(channels), height, width), np.dtype(np.uint8)))
    for channel in channels:
        whole.update(channel)
    return whole.digest()


def denormalize_to_uint8(
    values: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.uint8]:
    """The 8-bit pixels nearest to normalized ``values`` (N, C, H, W) or (N, C, D, H, W).

    Args:
        values: normalized values.
        mean: mean of pixel / 255 that was subtracted, per channel.
        std: standard deviation by which the difference was divided, per channel.
    """
    per_channel = (slice(None), *(None for _ in values.shape[2:]))
    pixels = values * np.asarray(std, np.float32)[per_channel]
    pixels += np.asarray(mean, np.float32)[per_channel]
    return np.asarray(np.clip(np.rint(pixels * 255), 0, 255), np.uint8)


def hashes_from_bytes(digests: bytes | bytearray, each: int) -> Hashes:
    """(N, each, 2) from N * each hashes of 16 bytes; zeros mean an unknown hash."""
    return np.frombuffer(digests, "<u8").reshape(-1, each, 2).astype(np.uint64)


def duplicate_ids(*hashes: Hashes) -> NDArray[np.int64]:
    """(N,) numbers from 0, equal for rows that agree in any of the ``hashes`` (N, 2).

    The relation is transitive. Numbers are in order of first appearance, so N different rows have
    0 .. N - 1. Unknown hashes agree with no other.
    """
    if all(_different(column) for column in hashes):
        return np.arange(len(hashes[0]))
    groups = [_first_equal(column) for column in hashes]
    return merge_ids(*groups)


def merge_ids(*groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) numbers from 0 in order of appearance, equal for rows that are equal in any group array.

    Args:
        groups: at least one array (N,) of numbers from 0 to N - 1.
    """
    label = groups[0]
    while True:
        before = label
        for group in groups:
            least = np.full(len(label), len(label), np.int64)
            np.minimum.at(least, group, label)
            label = least[group]
        if np.array_equal(before, label) or len(groups) == 1:
            return _numbered(label)


def connected_ids(
    rows: NDArray[np.int64], groups: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """(``count``,) numbers below ``count``, equal for rows that are connected through groups.

    Args:
        rows: (L,) row of each membership.
        groups: (L,) group of each membership, numbered from 0.
        count: number of rows.
    """
    label = np.arange(count)
    while True:
        least = np.full(int(groups.max(initial=-1)) + 1, count, np.int64)
        np.minimum.at(least, groups, label[rows])
        new = label.copy()
        np.minimum.at(new, rows, least[groups])
        if np.array_equal(new, label):
            return _numbered(label)
        label = new


def all_unique(ids: NDArray[np.int64]) -> bool:
    """Whether all of ``ids``, as of `duplicate_ids`, are different."""
    return len(ids) == 0 or int(ids.max()) == len(ids) - 1


def _numbered(label: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), np.int64)
    ranks[np.argsort(first)] = np.arange(len(first))
    return ranks[inverse]


def _different(hashes: Hashes) -> bool:
    """Whether all hashes are known and differ in their first words, as those of most tables do.

    This takes a tenth of the memory of finding equal hashes.
    """
    words = np.sort(hashes[:, 0])
    return bool((words[1:] != words[:-1]).all()) and bool(hashes.any(axis=1).all())


def _first_equal(hashes: Hashes) -> NDArray[np.int64]:
    """(N,) the first row with the same hash; the row itself if its hash is unknown."""
    rows = np.arange(len(hashes))
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(hashes), np.int64)
    # The sort is stable, so the first of equal rows comes first.
    first[order] = order[new][np.cumsum(new) - 1] if len(hashes) else order
    return np.where(hashes.any(axis=1), first, rows)


def _is_grey(block: NDArray[np.generic]) -> NDArray[np.bool]:
    """(n,) whether the three channels of a picture are equal; False for a single channel."""
    grey = np.zeros(len(block), bool)
    if block.shape[1] > 1:
        # In most color pictures, the first line shows that they are.
        line = block[:, :, 0]
        grey = (line == line[:, :1]).all(axis=tuple(range(1, line.ndim)))
        found = np.flatnonzero(grey)
        full = block[found]
        grey[found] = (full == full[:, :1]).all(axis=tuple(range(1, full.ndim)))
    return grey


def _hashed(block: NDArray[np.generic]) -> Hashes:
    if not len(block):
        return np.empty((0, 2), np.uint64)
    block = np.ascontiguousarray(block)
    if block.dtype.kind == "f":
        block = block + 0  # Turn -0.0 into 0.0.
    content = memoryview(block.data).cast("B")
    size = len(content) // len(block)
    seed, digest = _seed(block.shape[1:], block.dtype), xxhash.xxh3_128_digest
    digests = [digest(content[at : at + size], seed) for at in range(0, len(content), size)]
    return hashes_from_bytes(b"".join(digests), 1)[:, 0]


def _seed(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> int:
    """So that pictures of two shapes or types differ."""
    channels, *depth, height, width = shape
    kind = 0 if dtype == np.uint8 else 1 + dtype.itemsize
    plane = (kind * 61 + channels) << 40 ^ height << 20 ^ width
    return plane ^ sum(depth) << 52 & (1 << 64) - 1

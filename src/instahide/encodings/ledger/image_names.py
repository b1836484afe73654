"""The entries of a ledger under which an image is counted, found by its hashes.

A ledger has an entry for each source image. Further hashes are stored as renditions of entries: the
pixels of the source at another size, or the same pixels in another file format. An encoding of a
rendition also exposes its source. So an image is counted under the entry of its own hash, under the
entries of which its hashes are renditions, and recursively under those of their hashes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.encodings.ledger.image_hash import HASH_BYTES

#: An unknown hash in an array of hashes.
UNKNOWN = b""

Entries = NDArray[np.int64]


class ImageLinks(NamedTuple):
    """L renditions: ``hashes`` (L,), each with the entry in ``entries`` (L,)."""

    hashes: NDArray[np.bytes_]
    entries: Entries

    @classmethod
    def none(cls) -> ImageLinks:
        """No renditions."""
        return cls(np.empty(0, f"S{HASH_BYTES}"), np.empty(0, np.int64))

    def __add__(self, other: object) -> ImageLinks:
        """Both concatenated."""
        if not isinstance(other, ImageLinks):
            return NotImplemented
        return ImageLinks(
            np.concatenate([self.hashes, other.hashes]),
            np.concatenate([self.entries, other.entries]),
        )


class ImageNames:
    """Entries by hash.

    Args:
        own: (M,) hashes of the entries, all different.
        links: renditions of entries.
    """

    def __init__(self, own: NDArray[np.bytes_], links: ImageLinks) -> None:
        self._own = own
        both = ImageLinks(own, np.arange(len(own))) + links
        order = np.argsort(both.hashes, kind="stable")
        self._hashes, self._entries = both.hashes[order], both.entries[order]
        self._nested = bool(len(links.hashes)) and bool(np.isin(links.hashes, own).any())

    def known(self, hashes: NDArray[np.bytes_]) -> NDArray[np.bool]:
        """Whether each of ``hashes`` is the hash of an entry or of a rendition."""
        return np.searchsorted(self._hashes, hashes, "right") > np.searchsorted(
            self._hashes, hashes, "left"
        )

    def direct(self, hashes: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], Entries]:
        """Pairs (index into ``hashes``, entry) for hashes of entries and of renditions."""
        first = np.searchsorted(self._hashes, hashes, "left")
        counts = np.searchsorted(self._hashes, hashes, "right") - first
        counts[hashes == UNKNOWN] = 0
        which = np.repeat(np.arange(len(hashes)), counts)
        offsets = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return which, self._entries[first[which] + offsets]

    def all(self, hashes: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], Entries]:
        """As `direct`, and recursively for the hashes of these entries; sorted and unique."""
        which, entries = _unique(*self.direct(hashes))
        while self._nested:
            above, parents = self.direct(self._own[entries])
            before = len(which)
            which, entries = _unique(
                np.concatenate([which, which[above]]), np.concatenate([entries, parents])
            )
            if len(which) == before:
                break
        return which, entries

    def of_rows(self, keys: NDArray[np.bytes_]) -> Entries:
        """(N, w) entries of the rows with hashes ``keys`` (N, m), ascending, padded with -1.

        An unknown row has no entry.
        """
        count, each = keys.shape
        which, entries = self.all(keys.reshape(-1))
        rows, entries = _unique(which // max(1, each), entries)
        sizes = np.bincount(rows, minlength=count)
        found = np.full((count, max(1, int(sizes.max(initial=0)))), -1, np.int64)
        found[rows, np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[rows]] = entries
        return found


def primary(keys: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """(N,) the hash of a new entry for each row: the last known one of ``keys`` (N, m)."""
    chosen = keys[:, 0].copy()
    for column in keys.T[1:]:
        chosen = np.where(column == UNKNOWN, chosen, column)
    return chosen


def missing_links(names: ImageNames, keys: NDArray[np.bytes_]) -> ImageLinks:
    """The renditions in ``keys`` (N, m) that ``names`` lacks.

    Every hash of a row is a rendition of the entry of its `primary` hash.
    """
    which, entries = names.direct(primary(keys))
    hashes = keys[which]
    pairs = ImageLinks(hashes.reshape(-1), np.repeat(entries, hashes.shape[1]))
    given = pairs.hashes != UNKNOWN
    unique, codes = np.unique(pairs.hashes[given], return_inverse=True)
    codes, targets = _unique(codes, pairs.entries[given])
    there, known = names.direct(unique)
    size = int(max(targets.max(initial=0), known.max(initial=0))) + 1
    new = ~np.isin(codes * size + targets, there * size + known)
    return ImageLinks(unique[codes[new]], targets[new])


def inherited(
    names: ImageNames, links: ImageLinks, counts: NDArray[np.int64]
) -> tuple[Entries, Entries]:
    """The totals to add to entries when ``links`` are added.

    Encodings of a rendition also expose its source, but were not counted for the source while the
    link was unknown. Among the entries of a rendition, the one with the largest count has counted
    all its encodings.

    Returns:
        (target, origin), a pair for each addition.
    """
    unique, codes = np.unique(links.hashes, return_inverse=True)
    which, known = names.all(unique)
    if not len(which):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # The entry with the largest count of each hash comes last.
    order = np.lexsort((counts[known], which))
    last = np.flatnonzero(np.diff(which[order], append=-1))
    origin = np.full(len(unique), -1, np.int64)
    origin[which[order][last]] = known[order][last]
    link, targets = names.all(names._own[links.entries])
    codes, targets = _unique(codes[link], targets)
    size = len(counts) + 1
    fresh = ~np.isin(codes * size + targets, which * size + known) & (origin[codes] >= 0)
    found = _unique(targets[fresh], origin[codes[fresh]])
    return found[0], found[1]


def _unique(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[Entries, Entries]:
    """The distinct pairs, sorted."""
    size = int(second.max(initial=0)) + 1
    pairs = np.unique(first * size + second)
    return pairs // size, pairs % size

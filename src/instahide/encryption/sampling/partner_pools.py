"""The pools from which partners are drawn, such that a mix never contains a picture twice.

Images of one group, such as a patient, are one picture here. Rows that show the same picture have
adjacent places, so a picture is a span of places. Partners are
drawn outside the spans of the pictures that are in the mix already. This includes public images
that equal a private one, which count as encodings of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageSource, ImageTable
from instahide.data.duplicates.content_hash import (
    Hashes,
    all_unique,
    duplicate_ids,
    hashes_where,
    merge_ids,
    sampled_keys,
)
from instahide.data.image_source import content_ids_of, hashes_of, pixel_hashes_of
from instahide.encryption.scheme import Scheme
from instahide.errors import SchemeError

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PartnerPool:
    """N rows, of which M can be drawn, ordered so that rows of the same picture are adjacent.

    Attributes:
        places: (M, 3) int32 the row at each place, and begin and end of its picture's span,
            adjacent in memory because they are read together.
        spans: (N, 2) int32 for each row, begin and end of its picture's span; 0 if it has none.
    """

    places: NDArray[np.int32]
    spans: NDArray[np.int32]

    @classmethod
    def of(cls, ids: NDArray[np.int32], without: NDArray[np.int32] | None = None) -> PartnerPool:
        """Rows that show the pictures ``ids`` (N,); those of ``without`` are not drawn."""
        rows = np.argsort(ids, kind="stable")
        if without is not None and len(without):
            rows = rows[~np.isin(ids[rows], without)]
        ordered = ids[rows]
        places = np.empty((len(rows), 3), np.int32)
        places[:, 0] = rows
        places[:, 1] = np.searchsorted(ordered, ordered, "left")
        places[:, 2] = np.searchsorted(ordered, ordered, "right")
        spans = np.zeros((len(ids), 2), np.int32)
        spans[rows] = places[:, 1:]
        return cls(places, spans)

    @property
    def rows(self) -> NDArray[np.int32]:
        """(M,) the row at each place."""
        return self.places[:, 0]

    def __len__(self) -> int:
        return len(self.spans)


@dataclass(frozen=True, eq=False)
class PartnerPools:
    """The private and public rows from which partners are drawn, and the pictures that they show.

    Attributes:
        private_ids: (N,) int32, equal for rows of the same picture.
        public_ids: (M,) int32, likewise, with the same numbers.
        private: the private rows.
        public: the public rows.
        shared: (N, 2) int32 for each private place, the span of its picture among the public ones,
            empty if it has none; (0, 2) if no picture is both.
    """

    private_ids: NDArray[np.int32]
    public_ids: NDArray[np.int32]
    private: PartnerPool
    public: PartnerPool
    shared: NDArray[np.int32]

    @classmethod
    def of(cls, private: Ids, public: Ids) -> PartnerPools:
        """The pools of rows that show the pictures ``private`` (N,) and ``public`` (M,)."""
        return cls._of(private.astype(np.int32), public.astype(np.int32))

    @classmethod
    def _of(
        cls,
        private_ids: NDArray[np.int32],
        public_ids: NDArray[np.int32],
        without: NDArray[np.int32] | None = None,
    ) -> PartnerPools:
        private, public = PartnerPool.of(private_ids), PartnerPool.of(public_ids, without)
        ordered, wanted = public_ids[public.rows], private_ids[private.rows]
        spans = [np.searchsorted(ordered, wanted, side) for side in ("left", "right")]
        shared = np.stack(spans, axis=1).astype(np.int32)
        if not (shared[:, 1] > shared[:, 0]).any():
            shared = shared[:0].copy()
        return cls(private_ids, public_ids, private, public, shared)

    @property
    def pictures(self) -> tuple[int, ...]:
        """How many different pictures can be drawn: private, public, and both."""
        private, public = np.unique(self.private_ids), np.unique(self.public_ids[self.public.rows])
        return len(private), len(public), len(np.intersect1d(private, public))

    @property
    def private_in_public(self) -> int:
        """The number of private rows that are drawn as public images too, and so more often."""
        return int((self.shared[:, 1] > self.shared[:, 0]).sum())

    def public_draws(self, scheme: Scheme) -> NDArray[np.float64]:
        """How often a mix draws each private picture as a public one, on average and at most.

        Public rows of pictures that are in the mix already are not drawn. The others are then
        drawn more often; this is bounded by the largest k - 1 pictures.

        Returns:
            (N,) for each private row; the rows of one picture share its draws.
        """
        each = np.zeros(len(self.private_ids))
        if not self.private_in_public:
            return each
        _, sizes = np.unique(self.public_ids[self.public.rows], return_counts=True)
        left = sizes.sum() - np.sort(sizes)[::-1][: scheme.k - 1].sum()
        _, begin, end = self.private.places.T
        found = np.diff(self.shared, axis=1)[:, 0] * scheme.public_k / max(left, 1)
        each[self.private.rows] = np.minimum(found, 1) / (end - begin)
        most: NDArray[np.float64] = each * min(1.0, scheme.public_k / float(each.sum()))
        return most

    def only(self, rows: NDArray[np.int64]) -> PartnerPools:
        """The pools with only these private rows, renumbered from 0.

        Public images that equal one of the other private rows are not drawn either.
        """
        left = self.private_ids[rows]
        return PartnerPools._of(left, self.public_ids, np.setdiff1d(self.private_ids, left))

    def has_enough_for(self, scheme: Scheme) -> bool:
        """Whether there are enough pictures for any mix."""
        private, public, both = self.pictures
        few = scheme.public_k and public - min(both, scheme.private_k) < scheme.public_k
        return private >= scheme.private_k and not few

    def counted(
        self, drawn: NDArray[np.int64], weights: NDArray[np.float32], private_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The private images of mixes ``drawn`` (n, k), with their ``weights`` (n, k).

        A public image that equals a private one is one more private image. In the place of another
        public image, the first image of the mix stands again, with a weight of 0.
        """
        own = slice(0, private_k)
        if not len(self.shared):
            return drawn[:, own], weights[:, own]
        ordered = self.private_ids[self.private.rows]
        at = np.searchsorted(ordered, self.public_ids[drawn[:, private_k:]])
        place = np.minimum(at, len(ordered) - 1)
        equal = ordered[place] == self.public_ids[drawn[:, private_k:]]
        rows = np.where(equal, self.private.rows[place], drawn[:, :1])
        shares = np.where(equal, weights[:, private_k:], np.float32(0))
        return np.hstack([drawn[:, own], rows]), np.hstack([weights[:, own], shares])


class ContentIds(NamedTuple):
    """Identities of the pictures of N rows.

    ``ids``: (N,) numbers below N, equal for rows of the same picture; ``hashes``: (N, 2) of their
    values; ``pixels``: (N, 2) hashes of the 8-bit pixels behind these values, zeros if unknown.
    """

    ids: Ids
    hashes: Hashes
    pixels: Hashes

    @classmethod
    def of(cls, images: ImageSource, ids: Ids | None = None) -> ContentIds:
        """The identities of ``images`` by content; or by ``ids`` (N,), if the caller knows more."""
        found = content_ids_of(images) if ids is None else ids
        return cls(found, hashes_of(images), pixel_hashes_of(images))


def known_partner_pools(private: ContentIds, public: ImageSource | None) -> PartnerPools | None:
    """Like `partner_pools`, for private images of which only hashes are known."""
    if public is None or not len(public):
        none = np.empty(0, np.int64)
        return None if all_unique(merge_ids(private.ids)) else PartnerPools.of(private.ids, none)
    others, count = ContentIds.of(public), len(private.ids)
    return _joined_pools(private, others, count)


def _table_pools(ids: Ids, private: ImageTable, public: ImageTable) -> PartnerPools | None:
    """Like `known_partner_pools`, for tables: hashes only rows that may occur in both."""
    keys = [sampled_keys(table.pixels) for table in (private, public)]
    both = np.intersect1d(keys[0], keys[1])
    if not len(both) and all_unique(merge_ids(ids)) and all_unique(public.content_ids):
        return None
    found = [
        hashes_where(table.pixels, np.isin(key, both))
        for table, key in zip((private, public), keys, strict=True)
    ]
    known, others = (
        ContentIds(each, hashes, np.zeros_like(hashes))
        for each, hashes in zip((ids, public.content_ids), found, strict=True)
    )
    return _joined_pools(known, others, len(ids))


def _joined_pools(private: ContentIds, others: ContentIds, count: int) -> PartnerPools | None:
    ids = merge_ids(
        np.concatenate([private.ids, others.ids + count]),
        duplicate_ids(np.concatenate([private.hashes, others.hashes])),
        duplicate_ids(np.concatenate([private.pixels, others.pixels])),
    )
    return None if all_unique(ids) else PartnerPools.of(ids[:count], ids[count:])


def partner_pools(ids: Ids, images: ImageSource, public: ImageSource | None) -> PartnerPools | None:
    """The pools from which partners of ``images`` are drawn; None if all pictures are distinct.

    Args:
        ids: (N,) numbers below N, equal for images of the same picture.
        images: the private images.
        public: the public images.
    """
    if public is None or not len(public):
        none = np.empty(0, np.int64)
        return None if all_unique(merge_ids(ids)) else PartnerPools.of(ids, none)
    if isinstance(images, ImageTable) and isinstance(public, ImageTable):
        return _table_pools(ids, images, public)
    return known_partner_pools(ContentIds.of(images, ids), public)


def pools_of_tables(images: ImageTable, public: ImageTable | None) -> PartnerPools | None:
    """The pools of an encoder of ``images``, before it is made; None if all are distinct.

    Raises:
        DataError: the pixels of both seem to be in different units.
    """
    like = None if public is None else public.with_pixels_like(images)
    return partner_pools(images.content_ids, images, like)


def require_enough_images(scheme: Scheme, pools: PartnerPools | None) -> None:
    """Check that there are enough distinct pictures, of different groups, for a mix.

    Raises:
        SchemeError: there are too few.
    """
    if pools is None:
        return
    private, public, both = pools.pictures
    if private < scheme.private_k:
        raise SchemeError(
            f"A mix needs {scheme.private_k} private images of different pictures and groups; the "
            f"{len(pools.private)} images have {private}.",
            "Lower k, or use more different images, of more groups.",
        )
    if scheme.public_k and public - min(both, scheme.private_k) < scheme.public_k:
        equal = f", of which {both} are private images as well" if both else ""
        raise SchemeError(
            f"A mix needs {scheme.public_k} public images that are different pictures from each "
            f"other and from its private images; the {len(pools.public)} public images show "
            f"{public}{equal}.",
            "Make a larger pool with `instahide public`, or lower k.",
        )

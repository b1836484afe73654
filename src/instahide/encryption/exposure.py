"""The number of encodings that each private image went into, and a limit on it.

Attacks improve with this number. The attack that broke the authors' challenge had each image in
about 100 encodings (Carlini et al., arXiv:2011.05315).
"""

from __future__ import annotations

import os
import threading
from typing import NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from instahide.data.duplicates.content_hash import Hashes, all_unique, duplicate_ids, merge_ids
from instahide.data.duplicates.group_hash import Groups, group_hashes
from instahide.encryption.guarantees.loss_limit import LossLimit
from instahide.encryption.sampling._duplicates_numba import (
    add_to_totals,
    has_repeats,
    merge_repeats,
)
from instahide.errors import ExposureLimitError, InstaHideError
from instahide.utils.joint_processes import joint_processes

#: Type of counts and of sums of squares.
Scalar = TypeVar("Scalar", bound=np.generic)


class Exposure:
    """Counts the encodings that each private image went into, in one process; thread-safe.

    Images that show the same picture or belong to one group share a count: see `group`.

    Copying it within the process returns the same object. With a limit it cannot be pickled or
    used in a forked process or in a distributed run, because two counts would allow twice the
    limit. Without a limit it can: the copy starts from the counts so far, and the two then count
    separately. To count for several processes together, use an account of a ledger
    (`Ledger.account`).

    Args:
        images: number of private images, N.
        limit: largest number of encodings of an image; None for no limit.
        groups: the group of each image, such as its patient: names in order, or a function from
            number to name; an empty name for an image in no group. Images of one group share a
            count, and encoders never mix two of them.
        loss_limit: largest privacy loss of an image, such as `LossLimit.for_min_mse`; None for no
            limit.

    Attributes:
        images: N.
        limit: the limit, or None.
        loss_limit: the limit of the loss, or None.

    Raises:
        InstaHideError: ``limit`` is below 1, or there is not a group for each image.

    Examples:
        >>> import numpy as np
        >>> from instahide import Encoder, Exposure, Scheme, open_split
        >>> images = open_split("digits").train
        >>> exposure = Exposure(len(images), limit=100)
        >>> encoded = Encoder(Scheme.inside(4), images, exposure=exposure).encode(np.arange(8))
        >>> int(exposure.counts.sum())
        32
    """

    def __init__(
        self,
        images: int,
        *,
        limit: int | None = None,
        groups: Groups | None = None,
        loss_limit: LossLimit | None = None,
    ) -> None:
        require_limit(limit)
        self.images = images
        self.limit = limit
        self.loss_limit = loss_limit
        self._counts: NDArray[np.int64] = np.zeros(images, np.int64)
        self._squares: NDArray[np.float64] = np.zeros(images, np.float64)
        #: (N,) the first image with the same picture; None if all pictures are distinct.
        self._first: NDArray[np.int64] | None = None
        self._lock = threading.Lock()
        self._process = os.getpid()
        if groups is not None:
            self.identify(group_hashes(groups, images))

    @property
    def limited(self) -> bool:
        """Whether there is a limit, of encodings or of the loss."""
        return self.limit is not None or self.loss_limit is not None

    @property
    def counts(self) -> NDArray[np.int64]:
        """(N,) encodings that each image went into."""
        return self._each(self._counts)

    @property
    def squares(self) -> NDArray[np.float64]:
        """(N,) sums of its squared coefficients in them."""
        return self._each(self._squares)

    def further(self) -> NDArray[np.int64] | None:
        """(N,) encodings that each image may certainly still go into; None without a limit."""
        if not self.limited:
            return None
        return self._further(self.counts, self._losses(self.squares))

    @property
    def by_picture(self) -> NDArray[np.int64]:
        """(N,) counts of pictures: each at the first of its images, 0 at the others."""
        counts = self.counts
        if self._first is not None:
            counts = np.where(self._first == np.arange(self.images), counts, 0)
        return counts

    def identify(self, hashes: Hashes) -> NDArray[np.int64]:
        """Like `group`, by ``hashes`` (N, 2) of the images; zeros if a hash is unknown."""
        return self.group(duplicate_ids(hashes))

    def group(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Share one count between images that show the same picture, earlier counts included.

        Args:
            ids: (N,) numbers below N, equal for images that show the same picture, or that are to
                be protected together.

        Returns:
            (N,) numbers, equal for images that were grouped in this call or before.
        """
        with self._lock:
            known = ids if self._first is None else merge_ids(ids, self._first)
            if not all_unique(merge_ids(known)):
                self._count_together(known)
        return known

    def _count_together(self, ids: NDArray[np.int64]) -> None:
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        before, self._first = self._first, first[inverse]
        if before is None or not np.array_equal(before, self._first):
            self._counts = gathered(self._counts, self._first)
            # A mix may hold several of them, so that their coefficients add up before they are
            # squared: the roots add up to no less (the triangle inequality).
            self._squares = np.square(gathered(np.sqrt(self._squares), self._first))

    def _each(self, totals: NDArray[Scalar]) -> NDArray[Scalar]:
        """``totals`` (N,) of pictures, expanded to images."""
        return totals if self._first is None else totals[self._first]

    def _pictures(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows under which the images ``rows`` are counted."""
        return rows if self._first is None else self._first[rows]

    def require_rate(self, rate: float) -> None:
        """Check that the privacy accounting covers encodings with this ``rate``.

        Args:
            rate: `privacy.mu_squared_rate` of the scheme and of the images that are encrypted.

        Raises:
            InstaHideError: the accounting uses a lower rate, and would understate epsilon.
        """
        if self.loss_limit is not None and rate > self.loss_limit.rate * (1 + 1e-9):
            raise InstaHideError(
                "The exposure limits the loss for a scheme with more noise, or for images under "
                "another normalization, so the limit would not hold.",
                "Make the limit from the scheme that encrypts, and from the std of the images.",
            )

    def require_joint_limit(self) -> None:
        """Check that no other process of a distributed run applies the limit by itself.

        Raises:
            InstaHideError: several do.
        """
        if self.limited and type(self) is Exposure and (processes := joint_processes()) > 1:
            raise InstaHideError(
                f"{processes} processes would each apply the limit of an image by itself.",
                "Pass an account of one ledger in each process, which counts for all of them: "
                "`Ledger.open(path).account(dataset, limit=...)`.",
            )

    def begin_epoch(self, rows: NDArray[np.int64]) -> None:
        """Called at the start of an epoch that encrypts the images ``rows`` (n,) and no others.

        Does nothing unless other processes encrypt the same images.
        """

    def exhausted(self) -> NDArray[np.bool] | None:
        """(N,) whether each image is at its limit; None if no image is."""
        if not self.limited:
            return None
        spent = self._each(self._exhausted(self._counts, self._losses(self._squares)))
        return spent if spent.any() else None

    def record(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> int:
        """Count the first mixes, up to the one that would bring an image above its limit.

        Called before the encodings are computed, so that every encoding that leaves the encoder has
        been counted.

        Args:
            rows: (n, p) private images of n mixes.
            coefficients: (n, p) of these images. A picture that occurs twice in a mix is counted
                once, with the sum of its coefficients.

        Returns:
            The number of mixes that were counted.
        """
        if self.limited and os.getpid() != self._process:
            raise _counts_here()
        self.require_joint_limit()
        with self._lock:
            taken = len(rows)
            if self.limited:
                mixes = once_each(self._pictures(rows), coefficients)
                taken = self._within(*mixes, self._counts, self._losses(self._squares))
            totals = self._counts, self._squares
            add_to_totals(rows[:taken], self._first, coefficients[:taken], *totals)
        return taken

    def _losses(self, squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """The losses of images with ``squares``; zeros if the loss is not limited."""
        return squares * (0.0 if self.loss_limit is None else self.loss_limit.rate)

    def _exhausted(
        self, counts: NDArray[np.int64], losses: NDArray[np.float64]
    ) -> NDArray[np.bool]:
        """Whether images with these totals are at a limit."""
        spent = np.zeros(counts.shape, np.bool) if self.limit is None else counts >= self.limit
        return spent if self.loss_limit is None else spent | self.loss_limit.exhausted(losses)

    def _further(self, counts: NDArray[np.int64], losses: NDArray[np.float64]) -> NDArray[np.int64]:
        """Encodings that images with these totals may certainly still go into."""
        most = np.iinfo(np.int64).max if self.limit is None else self.limit
        left = np.maximum(most - counts, 0)
        if self.loss_limit is not None:
            left = np.minimum(left, self.loss_limit.further(losses))
        return left

    def _within(
        self,
        pictures: NDArray[np.int64],
        coefficients: NDArray[np.float32],
        counts: NDArray[np.int64],
        losses: NDArray[np.float64],
    ) -> int:
        """The number of first mixes, from `once_each`, that keep every image within its limits."""
        taken = len(pictures)
        if self.limit is not None:
            taken = within_limit(pictures, counts, self.limit)
        if self.loss_limit is not None:
            taken = min(taken, self.loss_limit.within(pictures, coefficients, losses))
        return taken

    def __copy__(self) -> Self:
        """The same object, so that there is one count."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """The same object, so that there is one count."""
        return self

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the counts so far.

        Raises:
            InstaHideError: there is a limit, which two separate counts would not enforce.
        """
        if self.limited:
            raise _counts_here()
        return _continued, (self.images, self._counts, self._squares, self._first)


class ExposureView(Exposure):
    """A view of some images of another exposure, which holds the counts.

    Args:
        whole: the exposure that holds the counts.
        rows: (n,) its images that the view shows, in order.
    """

    def __init__(self, whole: Exposure, rows: NDArray[np.int64]) -> None:
        self.images = len(rows)
        self.limit = whole.limit
        self.loss_limit = whole.loss_limit
        self._whole = whole
        self._rows = rows

    @property
    def counts(self) -> NDArray[np.int64]:
        """(n,) encodings that each image went into."""
        return self._whole.counts[self._rows]

    @property
    def squares(self) -> NDArray[np.float64]:
        """(n,) sums of its squared coefficients in them."""
        return self._whole.squares[self._rows]

    def further(self) -> NDArray[np.int64] | None:
        """(n,) encodings that each image may certainly still go into; None without a limit."""
        whole = self._whole.further()
        return None if whole is None else whole[self._rows]

    def exhausted(self) -> NDArray[np.bool] | None:
        """(n,) whether each image is at its limit; None if no image is."""
        whole = self._whole.exhausted()
        spent = None if whole is None else whole[self._rows]
        return spent if spent is not None and spent.any() else None

    def record(self, rows: NDArray[np.int64], coefficients: NDArray[np.float32]) -> int:
        """Like `Exposure.record`, with rows of the view."""
        return self._whole.record(self._rows[rows], coefficients)

    def __reduce__(self) -> NoReturn:
        raise TypeError("A view of an exposure cannot be copied: the counts are in the exposure.")


def require_limit(limit: int | None) -> None:
    """Check that a limit is at least 1.

    Raises:
        InstaHideError: ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise InstaHideError(f"The limit of encodings per image is {limit}.", "Use 1 or more.")


def within_limit(rows: NDArray[np.int64], counts: NDArray[np.int64], limit: int) -> int:
    """The number of first mixes of ``rows`` (n, p) that keep every image within ``limit``.

    Args:
        rows: images of each mix, distinct within a mix; -1 for an empty place.
        counts: (N,) encodings that each image went into before.
        limit: largest count of an image.
    """
    flat = rows.reshape(-1)
    # Sort each image together with its place: faster than argsort.
    ordered, order = np.divmod(np.sort(flat * len(flat) + np.arange(len(flat))), max(1, len(flat)))
    # The number of earlier occurrences of the same image in these mixes.
    earlier = np.arange(len(flat)) - np.searchsorted(ordered, ordered)
    beyond = order[(counts[ordered] + earlier >= limit) & (ordered >= 0)]
    return int(beyond.min()) // rows.shape[1] if len(beyond) else len(rows)


def once_each(
    pictures: NDArray[np.int64], coefficients: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """``pictures`` (n, p) with -1 in place of every repetition within a mix.

    A picture that occurs twice in a mix has the sum of its ``coefficients`` (n, p).
    """
    if has_repeats(pictures):
        pictures, coefficients = pictures.copy(), np.array(coefficients, np.float32)
        merge_repeats(pictures, coefficients)
    return pictures, coefficients


def gathered(totals: NDArray[Scalar], first: NDArray[np.int64]) -> NDArray[Scalar]:
    """(N,) sums of ``totals`` (N,) at the rows that ``first`` (N,) names, zeros elsewhere."""
    sums = np.zeros_like(totals)
    np.add.at(sums, first, totals)
    return sums


def limit_error(exposure: Exposure) -> ExposureLimitError:
    """The error that says that the limit of ``exposure`` is reached."""
    reached = [] if exposure.limit is None else [f"above {exposure.limit} encodings"]
    if exposure.loss_limit is not None:
        reached.append("to a privacy loss above its limit")
    return ExposureLimitError(
        f"The next encoding {'would' if exposure.loss_limit is None else 'could'} bring an image, "
        f"or the group that it is of, {' or '.join(reached)}.",
        "Stop here, or raise the limit knowing that attacks gain with every encoding of an image.",
    )


def _counts_here() -> InstaHideError:
    return InstaHideError(
        "An exposure with a limit counts in one process only: a copy in another process would "
        "count separately, and the limit would be exceeded.",
        "Use an account of a ledger (`Ledger.account`), which counts for all processes, or set no "
        "limit.",
    )


def _continued(
    images: int,
    counts: NDArray[np.int64],
    squares: NDArray[np.float64],
    first: NDArray[np.int64] | None,
) -> Exposure:
    exposure = Exposure(images)
    exposure._counts, exposure._squares, exposure._first = counts.copy(), squares.copy(), first
    return exposure

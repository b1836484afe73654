"""The split of a shared data set among participants, which each of them computes by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.data.splits import SPLIT_SEED
from instahide.errors import DataError

#: Fewest images of a participant: with less, mixes have too few partners.
LEAST_IMAGES = 10


def partition(
    labels: NDArray[np.int64], parts: int, *, alpha: float | None = None
) -> list[NDArray[np.int64]]:
    """Sorted rows of every part; no row is in two of them, and together they are all rows.

    Without ``alpha`` every part has the same share of each class. With it, the shares of a class
    are drawn from a symmetric Dirichlet distribution (Hsu, Qi and Brown, arXiv:1909.06335) with a
    public seed. They are the same for training and test images of the same classes.

    Args:
        labels: (N,) class numbers.
        parts: number of participants.
        alpha: Dirichlet parameter; a smaller value gives fewer classes in a part.

    Raises:
        DataError: a part would have fewer than `LEAST_IMAGES` images.
    """
    generator = np.random.default_rng(SPLIT_SEED)
    classes = np.unique(labels)
    portions = np.full((len(classes), parts), 1 / parts)
    if alpha is not None:
        portions = generator.dirichlet([alpha] * parts, len(classes))
    held: list[list[NDArray[np.int64]]] = [[] for _ in range(parts)]
    for number, portion in zip(classes, portions, strict=True):
        members = generator.permutation(np.flatnonzero(labels == number))
        ends = np.rint(portion.cumsum()[:-1] * len(members)).astype(np.int64)
        for part, rows in zip(held, np.split(members, ends), strict=True):
            part.append(rows)
    found = [np.sort(np.concatenate(part)) for part in held]
    least = min(len(rows) for rows in found)
    if least < LEAST_IMAGES:
        raise DataError(
            f"Of {len(labels)} images in {parts} parts, one part would have {least}.",
            "Use fewer participants, more images, or a larger alpha.",
        )
    return found

"""Finds the public images of an encoding by correlation with every patch of the pool.

Huang et al. (ICML 2020, section 4) describe this weakness of Mixup: a mix is similar to each
of its images. Natural images are also similar to each other. So both are whitened by the pool's
covariance before they are compared, and found images are subtracted before the next search
(orthogonal matching pursuit, Pati, Rezaiifar and Krishnaprasad, 1993).

The pool itself is not whitened: with the covariance S, the whitened product of a patch p and an
encoding e is p . (S^-1 e), a matrix product with the original patches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instahide.attacks.base import (
    EncodingObservation,
    Progress,
    PublicMatches,
    RecoveredImages,
    require,
)
from instahide.attacks.budget import Budget
from instahide.attacks.whitening import BLOCK, Pool

#: Values of an image at most, of whose covariance 4 GiB are kept.
MOST_VALUES = 1 << 15


class PublicSearch:
    """Finds the public images of every encoding without a mask."""

    name = "public-search"
    title = "Finding public images by whitened correlation"
    paper = "Huang et al., InstaHide, ICML 2020, section 4 (arXiv:2010.02772)"
    observes = EncodingObservation
    volumes = True
    squared = False

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if the attacker has the pool and the scheme uses public images."""
        if not observation.scheme.public_k:
            return "The scheme mixes no public images in."
        if observation.public is None or observation.threat.public != "images":
            return "The attacker does not have the public pool."
        values = math.prod(observation.encodings.shape[1:])
        if values > MOST_VALUES:
            return f"An image has {values:,} values; a covariance of {MOST_VALUES:,} is possible."
        return None

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> PublicMatches:
        """The public rows of each encoding, and without a mask also the remainder."""
        pool = Pool(require(observation.public), squared=self.squared)
        features = pool.centred(observation.encodings)
        wanted = observation.scheme.public_k
        found, weights, rest = pursue(pool, features, wanted, budget, progress)
        # The weight of a square is a squared coefficient.
        coefficients = weights.clamp(min=0).sqrt() if self.squared else weights
        left = float(rest.square().sum() / features.square().sum().clamp(min=1e-30))
        images = (rest + pool.mean).reshape_as(observation.encodings)
        return PublicMatches(
            found,
            coefficients,
            None if self.squared else RecoveredImages(images, observation.owners()),
            statistics={"found_per_encoding": float(found.shape[1]), "energy_left": left},
        )


class PublicSearchAbsolute(PublicSearch):
    """The same search on squares, which a mask does not change: x~^2 contains lambda_j^2 x_j^2."""

    name = "public-search-absolute"
    title = "Finding public images by whitened correlation of squares"
    paper = "Our extension of Huang et al., InstaHide, ICML 2020, section 4"
    observes = EncodingObservation
    volumes = True
    squared = True


def pursue(
    pool: Pool, features: Tensor, count: int, budget: Budget, progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """Find ``count`` patches in each of ``features`` (n, D), one after another.

    Returns:
        Rows of the pool (n, count), their weights (n, count), and the remainder (n, D). Fewer than
        ``count`` if the budget ends.
    """
    rows = torch.empty(len(features), 0, dtype=torch.int64)
    weights, rest = torch.empty(len(features), 0), features
    for step in range(count):
        if budget.over:
            break
        best = search(pool, pool.filters(rest), 1 + step)[1]
        rows = torch.cat([rows, _first_new(best, rows)], dim=1)
        weights, rest = _refit(pool, features, rows)
        progress(f"public image {step + 1} of {count}", (step + 1) / count)
    return rows, weights, rest


def search(pool: Pool, filters: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The ``top`` patches of the pool for each of ``filters`` (n, D), best first.

    The pool is processed in blocks, of which only the best patches are kept. Coefficients are not
    negative, so only positive scores matter.

    Returns:
        Scores (n, top), the whitened features projected on each patch, and rows (n, top).
    """
    best = torch.full((len(filters), top), -torch.inf)
    rows = torch.zeros(len(filters), top, dtype=torch.int64)
    for start in range(0, len(pool), BLOCK):
        block = pool.rows(slice(start, start + BLOCK))
        scores = (filters @ block.T).div_(pool.lengths[start : start + BLOCK].clamp(min=1e-12))
        values, places = scores.topk(min(top, len(block)), dim=1)
        best, order = torch.cat([best, values], dim=1).topk(top, dim=1)
        rows = torch.cat([rows, places + start], dim=1).gather(1, order)
    return best, rows


def _first_new(best: Tensor, rows: Tensor) -> Tensor:
    """(n, 1) the first element of each row of ``best`` that is not in ``rows``."""
    new = (best[:, :, None] != rows[:, None, :]).all(dim=2)
    return best.gather(1, new.int().argmax(dim=1, keepdim=True))


def _refit(pool: Pool, features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Whitened least squares of ``features`` (n, D) on the patches ``rows`` (n, j)."""
    patches = pool.rows(rows.reshape(-1).numpy())
    filters = pool.filters(patches).reshape(*rows.shape, -1)
    patches = patches.reshape(*rows.shape, -1)
    gram = patches @ filters.transpose(1, 2)
    gram.diagonal(dim1=1, dim2=2).add_(1e-6)
    weights = torch.linalg.solve(gram, (filters @ features[:, :, None]))
    return weights[:, :, 0], features - (weights * patches).sum(dim=1)

"""Assignment of private images to encodings, by features and by templates of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.pair_encoder.filters import high_pass, high_pass_adjoint

#: Rounds of the auction, and the price increase per round, relative to the surplus of encodings.
ROUNDS, STEP = 25, 0.4
#: Tolerated relative deviation of an image's number of encodings from the mean.
SLACK = 0.15
#: Ratios of two coefficients for which templates are computed, as angles in degrees: from a first
#: image that is much stronger than the second to equal strength. Pairs are tried in both orders.
ANGLES = (12, 30, 45)
#: Number of candidate images per encoding, the best matches. All pairs of them are tried.
CANDIDATES = 24
#: Ridge penalty of the centers, for features of length 1.
CENTRE_RIDGE = 0.3
#: Number of encodings whose pairs are tried at a time.
BLOCK = 32
#: Subtracted from scores that the labels rule out.
FORBIDDEN = 1e6


class Classes(NamedTuple):
    """``present`` (n, c) bool, the classes of each encoding; ``of`` (m,) class of each image."""

    present: Tensor
    of: Tensor

    def allow(self, rows: slice, images: Tensor) -> Tensor:
        """(r, q, q) bool: whether the classes of two images are exactly those of the label.

        Args:
            rows: the r encodings.
            images: (r, q) candidates of each.
        """
        of, present = self.of[images], self.present[rows]
        there = present.gather(1, of)
        classes = 1 + (of[:, :, None] != of[:, None, :]).int()
        both = there[:, :, None] & there[:, None, :]
        return both & (classes == present.sum(dim=1)[:, None, None])


def classes_of(scores: Tensor, labels: Tensor) -> Classes:
    """The class of each image: the one most over-represented in its highest-scoring encodings.

    Args:
        scores: (n, m) scores of encodings and images.
        labels: (n, c) labels, greater than 0 for each class of an encoding.
    """
    present = labels > 0
    best = scores.topk(min(40, max(2, len(scores) // scores.shape[1])), dim=0).indices
    over = present.float()[best].mean(dim=0) - present.float().mean(dim=0)
    return Classes(present, over.argmax(dim=1))


def feature_scores(features: Tensor, centres: Tensor) -> Tensor:
    """(n, m) z-scores of the similarity of encodings to the `prototypes` of images."""
    return robust_z_scores(features @ centres.T)


def refined_scores(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (n, m), as from `feature_scores`, and centers (m, D) of images with known mixes.

    One regression on all encodings gives the centers, so that the partners of an image do not leak
    into its center. The contribution of an encoding to a center is removed from its own score.

    Args:
        features: (n, D) features of length 1.
        weights: (n, m) coefficient of each image in each encoding.
    """
    gram = weights.T @ weights + CENTRE_RIDGE * torch.eye(weights.shape[1]).to(weights)
    solve = torch.linalg.inv(gram)
    centres = solve @ (weights.T @ features)
    norms = centres.norm(dim=1)
    scores = (features @ centres.T - weights @ solve) / norms
    return robust_z_scores(scores), centres / norms[:, None]


def robust_z_scores(scores: Tensor) -> Tensor:
    """(n, m) minus each column's median, over 1.48 times its median absolute deviation."""
    centred = scores - scores.median(dim=0).values
    return centred / (1.48 * centred.abs().median(dim=0).values + 1e-9)


def assign_by_features(scores: Tensor, per_mix: int, classes: Classes | None = None) -> Tensor:
    """(n, per_mix) images of each encoding; all images are in about the same number of encodings.

    This is an auction: the prices of images that are in too many encodings rise, and those of
    images that are in too few fall.

    Args:
        scores: (n, m) scores, see `feature_scores`.
        per_mix: number of private images in a mix.
        classes: classes from the labels, if known; only images of a class of the label are used.
    """
    if classes is not None:
        scores = scores.masked_fill(~classes.present[:, classes.of], -FORBIDDEN)
    images = scores.shape[1]
    due = len(scores) * per_mix / images
    prices = torch.zeros(images).to(scores)
    for _ in range(ROUNDS):
        chosen = (scores - prices).topk(per_mix, dim=1).indices
        surplus = chosen.flatten().bincount(minlength=images) / due - 1
        prices += STEP * surplus * (surplus.abs() > SLACK)
    return (scores - prices).topk(per_mix, dim=1).indices


class Templates:
    """Templates of the edges of x^2, for single images and for pairs.

    The template of images a and b with coefficients l and m is the high-pass of (l a + m b)^2. It
    is a sum of three terms, so that correlations with it follow from inner products of the terms.

    Args:
        sizes: (n, C, H, W) `magnitudes` of encodings.
        images: (m, C, H, W) images.
    """

    def __init__(self, sizes: Tensor, images: Tensor) -> None:
        squares = high_pass(sizes.square()).flatten(1)
        spread = squares.std(dim=0) + 1e-6
        observed = F.normalize((squares - squares.mean(dim=0)) / spread, dim=1)
        edges = high_pass(images.square()).flatten(1) / spread
        #: (n, m) products of encodings and the edges of one image.
        self._one = observed @ edges.T
        self._images = images.flatten(1)
        # The inner product of an encoding with the edges of a product of two images is the inner
        # product of this with the product of the images.
        self._both = high_pass_adjoint((observed / spread).reshape(sizes.shape)).flatten(1)
        self._ones, self._one_both, self._boths = _inner(images, edges, spread)

    def alone(self) -> Tensor:
        """(n, m) correlation of each encoding with each image's template."""
        return self._one / (self._ones.diagonal() + 1e-9).sqrt()

    def of_pairs(self, rows: slice, images: Tensor, angles: Sequence[float] = ANGLES) -> Tensor:
        """(r, q, q) correlation with the template of each pair of ``images``, maximal over angles.

        Args:
            rows: the r encodings.
            images: (r, q) candidates of each.
            angles: angles in degrees; the cosine is the coefficient of the first image, the sine
                that of the second.
        """
        held, alone = self._images[images], self._ones.diagonal()[images]
        both = (held * self._both[rows, None]) @ held.mT
        one = self._one[rows].gather(1, images)
        pairs = images[:, :, None], images[:, None, :]
        ones, one_both, boths = self._ones[pairs], self._one_both[pairs], self._boths[pairs]
        best = torch.full_like(both, -torch.inf)
        for angle in map(math.radians, angles):
            a, b, c = math.cos(angle) ** 2, math.sin(angle) ** 2, math.sin(2 * angle)
            product = a * one[:, :, None] + b * one[:, None, :] + c * both
            norm = a**2 * alone[:, :, None] + b**2 * alone[:, None, :] + c**2 * boths
            norm += 2 * (a * b * ones + c * (a * one_both + b * one_both.mT))
            best = best.maximum(product / (norm.clamp(min=0) + 1e-9).sqrt())
        return best


def _inner(images: Tensor, edges: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three (m, m) tables of inner products of edges, for images x and y.

    The first holds those of x^2 and y^2, the second of x^2 and xy, the third of xy with itself.
    """
    # Preallocated: small results between large temporary ones would fragment the memory, by 15 GB
    # for a thousand images.
    one_both, boths = torch.empty(2, len(images), len(images)).to(images)
    for row, (image, own) in enumerate(zip(images, edges, strict=True)):
        product = high_pass(image * images).flatten(1) / spread
        one_both[row], boths[row] = product @ own, product.square().sum(dim=1)
    return edges @ edges.T, one_both, boths


def assign_by_templates(
    templates: Templates, scores: Tensor, classes: Classes | None = None
) -> Tensor:
    """(n, 2) the pair of images of each encoding with the highest sum of correlation and scores.

    Only pairs of the best `CANDIDATES` single images are tried: all pairs of a thousand images
    would take days.

    Args:
        templates: templates of the encodings and images.
        scores: (n, m) scores to add for each image of a pair.
        classes: classes from the labels, if known; only pairs with exactly the classes of the label
            are used.
    """
    alone = templates.alone() + scores
    if classes is not None:
        alone = alone.masked_fill(~classes.present[:, classes.of], -FORBIDDEN)
    candidates = alone.topk(min(CANDIDATES, alone.shape[1]), dim=1).indices
    found = []
    for start in range(0, len(scores), BLOCK):
        rows = slice(start, start + BLOCK)
        images = candidates[rows]
        own = scores[rows].gather(1, images)
        total = templates.of_pairs(rows, images) + own[:, :, None] + own[:, None, :]
        if classes is not None:
            total -= FORBIDDEN * ~classes.allow(rows, images)
        total.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        best = total.flatten(1).argmax(dim=1)
        pair = torch.stack([best // images.shape[1], best % images.shape[1]], dim=1)
        found.append(images.gather(1, pair))
    return torch.cat(found)

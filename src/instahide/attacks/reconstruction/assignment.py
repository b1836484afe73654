"""Which private images each encoding holds: by its features, then by what the images look like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.pair_encoder.filters import high_pass, high_pass_adjoint

#: Rounds in which images that too many encodings claim become dearer, and by how much an encoding.
ROUNDS, STEP = 25, 0.4
#: Counts may stray this far from the mean, as a share of it.
SLACK = 0.15
#: Ratios of two coefficients that a template is tried with, as angles in degrees: from the first
#: image being much the weaker to both being as strong. Each pair is tried in both orders.
ANGLES = (12, 30, 45)
#: Images of which every pair is tried as what an encoding holds: those that look most like it.
CANDIDATES = 24
#: Precision of a centre's values, where features are of length 1.
CENTRE_RIDGE = 0.3
#: Encodings whose pairs are tried at a time.
BLOCK = 32
#: Taken from the score of what labels rule out.
FORBIDDEN = 1e6


class Classes(NamedTuple):
    """What labels tell: ``present`` (n, c) bool by encoding, ``of`` (m,) class of each image."""

    present: Tensor
    of: Tensor

    def allow(self, rows: slice, images: Tensor) -> Tensor:
        """(r, q, q) bool: whether two of ``images`` (r, q) are of just the classes of the label.

        Args:
            rows: the r encodings.
            images: candidates of each.
        """
        of, present = self.of[images], self.present[rows]
        there = present.gather(1, of)
        classes = 1 + (of[:, :, None] != of[:, None, :]).int()
        both = there[:, :, None] & there[:, None, :]
        return both & (classes == present.sum(dim=1)[:, None, None])


def classes_of(scores: Tensor, labels: Tensor) -> Classes:
    """The class of each image: the one most over-represented in the encodings that score highest.

    Args:
        scores: (n, m) of encodings and images.
        labels: (n, c), above 0 for each class that is there.
    """
    present = labels > 0
    best = scores.topk(min(40, max(2, len(scores) // scores.shape[1])), dim=0).indices
    over = present.float()[best].mean(dim=0) - present.float().mean(dim=0)
    return Classes(present, over.argmax(dim=1))


def feature_scores(features: Tensor, centres: Tensor) -> Tensor:
    """(n, m) likeness of encodings to the `prototypes` of images, comparable between images."""
    return robust_z_scores(features @ centres.T)


def refined_scores(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (n, m) as of `feature_scores`, and centres (m, D), of images whose mixes are known.

    Centres are regressed on all encodings at once, so that what is mixed with an image does not
    leak into its centre; and no encoding is scored by what it brought into a centre itself.

    Args:
        features: (n, D), of length 1 each.
        weights: (n, m) coefficient of each image in each encoding.
    """
    gram = weights.T @ weights + CENTRE_RIDGE * torch.eye(weights.shape[1]).to(weights)
    solve = torch.linalg.inv(gram)
    centres = solve @ (weights.T @ features)
    norms = centres.norm(dim=1)
    scores = (features @ centres.T - weights @ solve) / norms
    return robust_z_scores(scores), centres / norms[:, None]


def robust_z_scores(scores: Tensor) -> Tensor:
    """(n, m) less each column's median, over its median absolute deviation."""
    centred = scores - scores.median(dim=0).values
    return centred / (1.48 * centred.abs().median(dim=0).values + 1e-9)


def assign_by_features(scores: Tensor, per_mix: int, classes: Classes | None = None) -> Tensor:
    """(n, per_mix) images of each encoding, every image in about as many encodings as any other.

    An auction: images that too many encodings claim are made dearer, neglected ones cheaper.

    Args:
        scores: (n, m), see `feature_scores`.
        per_mix: private images in a mix.
        classes: what labels tell, if there are any: only images of a class that is there.
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
    """What the edges of x^2 look like for one image alone, or for any two together.

    The template of images a and b under coefficients l and m is the high-pass of (l a + m b)^2: a
    sum of three parts, so that the correlations with it follow from inner products of these.

    Args:
        sizes: (n, C, H, W) `magnitudes` of encodings.
        images: (m, C, H, W).
    """

    def __init__(self, sizes: Tensor, images: Tensor) -> None:
        squares = high_pass(sizes.square()).flatten(1)
        spread = squares.std(dim=0) + 1e-6
        seen = F.normalize((squares - squares.mean(dim=0)) / spread, dim=1)
        edges = high_pass(images.square()).flatten(1) / spread
        #: (n, m) products of encodings and the edges of one image.
        self._one = seen @ edges.T
        self._images = images.flatten(1)
        # Of an encoding with the edges that two images make: their product, weighed by this.
        self._both = high_pass_adjoint((seen / spread).reshape(sizes.shape)).flatten(1)
        self._ones, self._one_both, self._boths = _inner(images, edges, spread)

    def alone(self) -> Tensor:
        """(n, m) correlation of each encoding with each image's template."""
        return self._one / (self._ones.diagonal() + 1e-9).sqrt()

    def of_pairs(self, rows: slice, images: Tensor, angles: Sequence[float] = ANGLES) -> Tensor:
        """(r, q, q) correlation with the template of two of ``images``, the best of all angles.

        Args:
            rows: the r encodings.
            images: (r, q) candidates of each.
            angles: in degrees: the cosine is the coefficient of the first of two, the sine of the
                second.
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
    """(m, m) inner products of the edges of images x and y alone and of their product.

    Of x^2 and y^2; of x^2 and xy; of xy with itself.
    """
    # Into memory that is there: small results kept between large ones that go would leave holes in
    # it, 15 GB for a thousand images.
    one_both, boths = torch.empty(2, len(images), len(images)).to(images)
    for row, (image, own) in enumerate(zip(images, edges, strict=True)):
        product = high_pass(image * images).flatten(1) / spread
        one_both[row], boths[row] = product @ own, product.square().sum(dim=1)
    return edges @ edges.T, one_both, boths


def assign_by_templates(
    templates: Templates, scores: Tensor, classes: Classes | None = None
) -> Tensor:
    """(n, 2) the pair of images of each encoding whose template and scores are highest together.

    Pairs are those of the `CANDIDATES` that are best by themselves: all pairs of a thousand images
    would take days.

    Args:
        templates: of the encodings and images.
        scores: (n, m) that are added for each image of a pair.
        classes: what labels tell, if there are any: only pairs of the classes that are there.
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

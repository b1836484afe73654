"""Which private images each encoding holds: by its features, then by what the images look like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from instahide.attacks.reconstruction.filters import high_pass

#: Rounds in which images that too many encodings claim become dearer, and by how much an encoding.
ROUNDS, STEP = 25, 0.4
#: Counts may stray this far from the mean, as a share of it.
SLACK = 0.15
#: Ratios of two coefficients that a template is tried with, as angles in degrees.
ANGLES = (12, 30, 45, 60, 78)
#: Precision of a centre's values, where features are of length 1.
CENTRE_RIDGE = 0.3
#: Pairs whose templates are made at a time.
BLOCK = 512
#: Taken from the score of what labels rule out.
FORBIDDEN = 1e6


class Classes(NamedTuple):
    """What labels tell: ``present`` (n, c) bool by encoding, ``of`` (m,) class of each image."""

    present: Tensor
    of: Tensor

    def allow(self, pairs: Tensor) -> Tensor:
        """(n, p) bool: whether the classes of ``pairs`` (p, k) are just those of the label."""
        held = torch.zeros(len(pairs), self.present.shape[1], dtype=torch.bool)
        held = held.to(pairs.device).scatter(1, self.of[pairs], value=True)
        both = held.float() @ self.present.float().T
        return ((both == held.sum(1)[:, None]) & (both == self.present.sum(1))).T


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
    return comparable(features @ centres.T)


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
    return comparable(scores), centres / norms[:, None]


def comparable(scores: Tensor) -> Tensor:
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

    The template of images a and b under coefficients l and m is the high-pass of (l a + m b)^2, a
    sum of three parts, so that any coefficients can be scored from three matrix products.

    Args:
        sizes: (n, C, H, W) `magnitudes` of encodings.
        images: (m, C, H, W).
    """

    def __init__(self, sizes: Tensor, images: Tensor) -> None:
        squares = high_pass(sizes.square()).flatten(1)
        self._images, self._spread = images, squares.std(dim=0) + 1e-6
        centred = (squares - squares.mean(dim=0)) / self._spread
        self._seen = torch.nn.functional.normalize(centred, dim=1)
        self._edges = high_pass(images.square()).flatten(1) / self._spread
        self._alone, self._alone_norms = self._seen @ self._edges.T, self._edges.square().sum(dim=1)
        self.pairs = torch.combinations(torch.arange(len(images), device=images.device))

    def alone(self) -> Tensor:
        """(n, m) correlation of each encoding with each image's template."""
        return self._alone / self._alone_norms.sqrt()

    def of_pairs(self, pairs: Tensor, angles: Sequence[float] = ANGLES) -> Tensor:
        """(n, p) correlation with the template of each of ``pairs`` (p, 2), the best of all angles.

        Args:
            pairs: of images.
            angles: in degrees, whose cosine and sine are in the ratio of a pair's coefficients.
        """
        a, b = pairs.T
        mixed = high_pass(self._images[a] * self._images[b]).flatten(1) / self._spread
        first, second = self._edges[a], self._edges[b]
        inner = [(one * other).sum(dim=1) for one, other in
                 ((mixed, mixed), (first, second), (first, mixed), (second, mixed))]  # fmt: skip
        products = self._seen @ mixed.T
        best = torch.full_like(products, -torch.inf)
        for angle in angles:
            torch.maximum(best, self._under(angle, pairs, products, inner), out=best)
        return best

    def _under(self, angle: float, pairs: Tensor, products: Tensor, inner: list[Tensor]) -> Tensor:
        """(n, p) correlations under one ratio, from the products that all ratios need."""
        a, b = pairs.T
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        one, other, both = cosine**2, sine**2, 2 * cosine * sine
        mixed, first_second, first_mixed, second_mixed = inner
        norm = one**2 * self._alone_norms[a] + other**2 * self._alone_norms[b] + both**2 * mixed
        norm += 2 * one * other * first_second
        norm += 2 * both * (one * first_mixed + other * second_mixed)
        product = one * self._alone[:, a] + other * self._alone[:, b] + both * products
        return product / (norm + 1e-9).sqrt()


def assign_by_templates(
    templates: Templates, scores: Tensor, classes: Classes | None = None
) -> Tensor:
    """(n, 2) the pair of images of each encoding whose template and scores are highest together.

    A block of pairs at a time: memory grows with the encodings, not with the pairs.

    Args:
        templates: of all pairs.
        scores: (n, m) that are added for each image of a pair.
        classes: what labels tell, if there are any: only pairs of the classes that are there.
    """
    best = torch.full((len(scores),), -torch.inf).to(scores)
    chosen = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    for block in torch.split(torch.arange(len(templates.pairs), device=scores.device), BLOCK):
        pairs = templates.pairs[block]
        total = templates.of_pairs(pairs) + scores[:, pairs[:, 0]] + scores[:, pairs[:, 1]]
        if classes is not None:
            total.sub_(FORBIDDEN * ~classes.allow(pairs))
        found = total.max(dim=1)
        chosen = torch.where(found.values > best, block[found.indices], chosen)
        best = torch.maximum(best, found.values)
    return templates.pairs[chosen]

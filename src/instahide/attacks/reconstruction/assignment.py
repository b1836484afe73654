"""Assignment of private images to encodings, by features of the encodings.

Every encoding has a few candidates, the images that its features speak for most. All pairs of them
are compared. Each image is the first image of the same number of encodings, and a partner in about
as many. Prices of images make the expected numbers meet this constraint: prices of images that too
many encodings claim rise, and those of images that too few claim fall. This is the scaling
algorithm of optimal transport (Sinkhorn), with encodings on one side and images on the other.
Memory is linear in the number of encodings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.clustering import (
    STARTS,
    densest_clusters,
    prototypes,
)
from instahide.attacks.reconstruction.feature_model import FeatureModel, fit_features
from instahide.attacks.reconstruction.neighbours import blocks

#: Number of candidate images per encoding, and number of their pairs that are kept.
CANDIDATES, PAIRS = 24, 24
#: Rounds of the auction, and the price increase per round, relative to the surplus of encodings.
ROUNDS, STEP = 25, 0.4
#: Tolerated relative deviation of an image's number of encodings from the mean.
SLACK = 0.15
#: Rounds of assignment and regression on features, before and after each renewal of images.
REFINEMENTS, RENEWALS = 4, 3
#: Share of further images in a renewal; size of their clusters, relative to the encodings of an
#: image; and least variance that an image explains, relative to the median, if the number of images
#: is unknown.
FURTHER, RESIDUE_SHARE, LEAST_SHARE = 0.1, 0.2, 0.22
#: Largest number of iterations of the prices in each of them, and change that ends them; and power
#: of each correction: 1 would meet the constraint exactly, even for an image whose cluster was not
#: found.
SCALINGS, SETTLED, POWER = 30, 0.01, 0.8
#: Number of encodings of strength 1 that are added to an image's own for the mean of its strengths.
PRIOR = 3
#: Number of encodings from which medians of scores are estimated.
SAMPLE = 4096
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

    def forbid(self, rows: slice, scores: Tensor) -> Tensor:
        """``scores`` (r, m) of ``rows`` without those of images whose class the label lacks."""
        return scores.masked_fill(~self.present[rows][:, self.of], -FORBIDDEN)


class Assignment(NamedTuple):
    """Images and strengths of n encodings.

    Attributes:
        members: (n, k) images of each encoding.
        strengths: (n, k) squared coefficient of each, over the mean of squared coefficients.
    """

    members: Tensor
    strengths: Tensor


class Pairs(NamedTuple):
    """Pairs of images of each encoding: ``first``, ``second`` and log ``evidence``, all (n, p)."""

    first: Tensor
    second: Tensor
    evidence: Tensor


def classes_of(features: Tensor, centres: Tensor, labels: Tensor) -> Classes:
    """The class of each image: the one most over-represented in its most similar encodings.

    Args:
        features: (n, d) features.
        centres: (m, d) `prototypes` of the images.
        labels: (n, c) labels, greater than 0 for each class of an encoding.
    """
    present = labels > 0
    share = present.float().mean(dim=0)
    most = min(40, max(2, len(features) // len(centres)))
    found = []
    for images in blocks(len(centres), len(features)):
        best = (features @ centres[images].T).topk(most, dim=0).indices
        found.append((present.float()[best].mean(dim=0) - share).argmax(dim=1))
    return Classes(present, torch.cat(found))


def assign_by_features(
    features: Tensor,
    groups: Tensor,
    per_mix: int,
    variance: float,
    *,
    count: int | None = None,
    labels: Tensor | None = None,
) -> tuple[Assignment, Tensor]:
    """Images of each encoding, and (m, d) their centers: alternates assignment and regression.

    Images for which there was no cluster are looked for in what the others leave of the features.
    Then the images that explain least are dropped.

    Args:
        features: (n, d) features.
        groups: (g, size) clusters of encodings, one for each image.
        per_mix: number of private images in a mix.
        variance: variance of strengths.
        count: number of images m, if known.
        labels: (n, c) labels, if known; only images whose classes are those of the label are
            assigned, if there are any.
    """
    centres = prototypes(features, groups)
    classes = None if labels is None else classes_of(features, centres, labels)
    members = assign_by_similarity(features, centres, per_mix, classes)
    found = Assignment(members, torch.ones(members.shape).to(features))
    model = fit_features(features, *found, len(groups), variance)

    def refine(model: FeatureModel, times: int) -> tuple[FeatureModel, Assignment]:
        known = None if labels is None else classes_of(features, model.directions, labels)
        found = reassigned(model, known)
        again = fit_features(features, *found, len(model.centres), variance)
        return (again, found) if times == 1 else refine(again, times - 1)

    model, found = refine(model, REFINEMENTS)
    for _ in range(RENEWALS):
        found, images = _with_further_images(found, model)
        model, found = refine(fit_features(features, *found, images, variance), 1)
        kept = most_explaining(model.centres, *found, count)
        model, found = refine(model.restricted(kept), 1 + REFINEMENTS)
    return found, model.directions


def _with_further_images(found: Assignment, model: FeatureModel) -> tuple[Assignment, int]:
    """``found`` with further images, and the number of images with them.

    Each is the weakest image in the encodings of a cluster of residues.
    """
    images = len(model.centres)
    size = max(2, round(RESIDUE_SHARE * found.members.numel() / images))
    most = max(2, round(FURTHER * images))
    residues = F.normalize(model.residues, dim=1)
    groups = densest_clusters(residues, size, STARTS * images, most)
    members, strengths = found.members.clone(), found.strengths.clone()
    weakest = strengths.argmin(dim=1)
    for number, group in enumerate(groups):
        members[group, weakest[group]] = images + number
        strengths[group, weakest[group]] = 1.0
    return Assignment(members, strengths), images + len(groups)


def most_explaining(
    centres: Tensor, members: Tensor, strengths: Tensor, count: int | None
) -> Tensor:
    """(m,) the ``count`` images, of ``centres`` (m, ...), that explain most of the features.

    Without a ``count`` those that explain enough.
    """
    energy = torch.zeros(len(centres)).to(strengths)
    energy.index_add_(0, members.flatten(), strengths.flatten().square())
    energy *= centres.flatten(1).square().sum(dim=1)
    if count is None:
        return (energy >= LEAST_SHARE * energy.median()).nonzero()[:, 0]
    return energy.topk(min(count, len(energy))).indices.sort().values


def assign_by_similarity(
    features: Tensor, centres: Tensor, per_mix: int, classes: Classes | None = None
) -> Tensor:
    """(n, per_mix) the images whose ``centres`` (m, d) are most similar to each encoding.

    Similarities are robust z-scores for each image: minus the median over encodings, over 1.48
    times the median absolute deviation.
    """
    some = features[:: -(-len(features) // SAMPLE)]
    scores = some @ centres.T
    medians = scores.median(dim=0).values
    spreads = 1.48 * (scores - medians).abs().median(dim=0).values + 1e-9
    images, best = [], []
    for rows in blocks(len(features), len(centres)):
        scores = (features[rows] @ centres.T - medians) / spreads
        if classes is not None:
            scores = classes.forbid(rows, scores)
        top = scores.topk(min(CANDIDATES, len(centres)), dim=1)
        images.append(top.indices)
        best.append(top.values)
    return auction(torch.cat(images), torch.cat(best), len(centres), per_mix)


def auction(candidates: Tensor, scores: Tensor, images: int, per_mix: int) -> Tensor:
    """(n, per_mix) images of each encoding; all images are in about the same number of encodings.

    Args:
        candidates: (n, q) candidate images of each encoding.
        scores: (n, q) their scores.
        images: number of images.
        per_mix: number of images in a mix.
    """
    due = len(scores) * per_mix / images
    prices = torch.zeros(images).to(scores)

    def cheapest() -> Tensor:
        return candidates.gather(1, (scores - prices[candidates]).topk(per_mix, dim=1).indices)

    for _ in range(ROUNDS):
        surplus = cheapest().flatten().bincount(minlength=images) / due - 1
        prices += STEP * surplus * (surplus.abs() > SLACK)
    return cheapest()


def reassigned(model: FeatureModel, classes: Classes | None = None) -> Assignment:
    """The most likely images of each encoding, under the constraint on the number of encodings.

    Args:
        model: model of the features; mixes have as many images as its members.
        classes: classes from the labels, if known.
    """
    if model.members.shape[1] == 2:
        pairs = candidate_pairs(model, classes)
        members = most_likely_pairs(pairs, prices_of(pairs, len(model.centres)))
    else:
        candidates, evidence = _best_candidates(model, classes)
        members = auction(candidates, evidence, len(model.centres), model.members.shape[1])
    strengths = torch.cat(
        [
            model.strengths(rows, members[rows])
            for rows in blocks(len(members), members.shape[1] * model.features.shape[1])
        ]
    )
    return Assignment(members, normalised_strengths(strengths, members, len(model.centres)))


def normalised_strengths(strengths: Tensor, members: Tensor, images: int) -> Tensor:
    """``strengths`` (n, k) with a mean of about 1 for each image.

    A center can grow while the strengths of its image shrink; this would go on round by round.
    """
    total = torch.full((images,), float(PRIOR)).to(strengths)
    held = total.clone().index_add_(0, members.flatten(), torch.ones_like(strengths).flatten())
    total.index_add_(0, members.flatten(), strengths.flatten())
    return strengths * (held / total)[members]


def candidate_pairs(model: FeatureModel, classes: Classes | None = None) -> Pairs:
    """The `PAIRS` most likely pairs of images of each encoding, by their features."""
    width = min(CANDIDATES, len(model.centres))
    first, second = torch.triu_indices(width, width, 1, device=model.centres.device)
    count = min(PAIRS, len(first))
    empty = torch.empty(len(model.features), count, dtype=torch.int32, device=first.device)
    pairs = Pairs(empty, empty.clone(), torch.empty(empty.shape).to(model.centres))
    values = len(model.centres) + width * (width + model.features.shape[1])
    for rows in blocks(len(model.features), values):
        images = _best_single(model, rows, classes).indices
        evidence = model.pairs(rows, images)
        if classes is not None:
            evidence = evidence - FORBIDDEN * ~classes.allow(rows, images)
        best = evidence[:, first, second].topk(count, dim=1)
        pairs.first[rows] = images.gather(1, first[best.indices]).int()
        pairs.second[rows] = images.gather(1, second[best.indices]).int()
        pairs.evidence[rows] = best.values
    return pairs


def prices_of(pairs: Pairs, images: int) -> Tensor:
    """(images,) log prices at which each image is first in about the same number of encodings.

    They are found by the scaling algorithm of optimal transport (Sinkhorn). With a `POWER` below 1
    the constraint is soft: an image whose cluster was not found has no encodings to give away.
    """
    due = len(pairs.first) / images
    prices = torch.zeros(images).to(pairs.evidence)
    either = torch.cat([pairs.first, pairs.second], dim=1).long()
    evidence = torch.cat([pairs.evidence, pairs.evidence], dim=1)
    for _ in range(SCALINGS):
        likely = (evidence - prices[either]).softmax(dim=1)
        expected = torch.zeros(images).to(prices).index_add_(0, either.flatten(), likely.flatten())
        before, prices = prices, POWER * (prices + (expected.clamp(min=due / 100) / due).log())
        if (prices - before).abs().max() < SETTLED:
            break
    return prices


def most_likely_pairs(pairs: Pairs, prices: Tensor) -> Tensor:
    """(n, 2) the most likely pair of each encoding at ``prices``; either image can be first."""
    first, second = pairs.first.long(), pairs.second.long()
    total = pairs.evidence + torch.logaddexp(-prices[first], -prices[second])
    best = total.argmax(dim=1, keepdim=True)
    return torch.cat([first.gather(1, best), second.gather(1, best)], dim=1)


def _best_single(
    model: FeatureModel, rows: slice, classes: Classes | None
) -> torch.return_types.topk:
    """The candidate images of the encodings ``rows``, and their evidence."""
    evidence = model.single(rows)
    if classes is not None:
        evidence = classes.forbid(rows, evidence)
    return evidence.topk(min(CANDIDATES, evidence.shape[1]), dim=1)


def _best_candidates(model: FeatureModel, classes: Classes | None) -> tuple[Tensor, Tensor]:
    """(n, q) candidate images of all encodings, and (n, q) their evidence."""
    width = min(CANDIDATES, len(model.centres))
    images = torch.empty(len(model.features), width, dtype=torch.int64).to(model.members.device)
    evidence = torch.empty(images.shape).to(model.centres)
    for rows in blocks(len(model.features), len(model.centres)):
        evidence[rows], images[rows] = _best_single(model, rows, classes)
    return images, evidence

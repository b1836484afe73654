"""Assignment of cropped private images to encodings, and the move of each.

It alternates between the most likely images of each encoding, at their best moves, and a regression
that gives the features of the images, as `assignment` does without moves. Images that are missing
are looked for in what the others leave of the encodings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from instahide.attacks.reconstruction.assignment import (
    CANDIDATES,
    Classes,
    auction,
    most_explaining,
    normalised_strengths,
)
from instahide.attacks.reconstruction.clustering import FIRST, FIRST_SHARE, FIRST_STARTS
from instahide.attacks.reconstruction.cropped.clusters import PLACED, find_images
from instahide.attacks.reconstruction.cropped.feature_maps import normalized
from instahide.attacks.reconstruction.cropped.moves import best_moves
from instahide.attacks.reconstruction.feature_model import (
    RIDGE,
    STRONGEST,
    WEAKEST,
)
from instahide.attacks.reconstruction.recovery.moved_mixing import MovedMixing

#: Starts of clusters per image; half as many to look for further images.
STARTS = 6
#: Rounds of assignment and regression after the images are found, and before further ones are;
#: and how often further images are looked for.
REFINEMENTS, BETWEEN, RENEWALS = 4, 2, 2
#: Share of encodings, those explained least, in which further images are looked for; number of
#: clusters that must show one; and share of images that may be wrong, to be dropped at the end.
UNEXPLAINED, FURTHER_SUPPORT, SPARE = 0.5, 2, 0.1
#: Steps of conjugate gradients in a regression, and ridge penalty of strengths.
STEPS, STRENGTH_RIDGE = 6, 0.05


class Placed(NamedTuple):
    """What is known of m images in n encodings.

    Attributes:
        centres: (m, c, H, W) features of the images, each in its own frame.
        members: (n, k) images of each encoding.
        moves: (n, k, 2) by how many pixels each is moved down and right.
        strengths: (n, k) squared coefficient of each, over the mean of squared coefficients.
    """

    centres: Tensor
    members: Tensor
    moves: Tensor
    strengths: Tensor

    def mixing(self, coefficients: Tensor, padding: int) -> MovedMixing:
        """The images with ``coefficients`` (n, k)."""
        return MovedMixing(self.members, coefficients, len(self.centres), self.moves, padding)


def place_images(
    maps: Tensor,
    per_mix: int,
    padding: int,
    generator: torch.Generator,
    *,
    count: int | None,
    labels: Tensor | None,
) -> Placed:
    """Find the images of all encodings.

    Args:
        maps: (n, c, H, W) `feature_maps`.
        per_mix: number of private images in a mix.
        padding: largest move of an image.
        generator: of the random starts.
        count: number of images, if known.
        labels: (n, c) labels, if known.
    """
    order = torch.randperm(len(maps), generator=generator).to(maps.device)
    starts = max(FIRST_STARTS, round(FIRST_SHARE * len(maps))) if count is None else STARTS * count
    held = FIRST / PLACED if count is None else per_mix * len(maps) / count
    centres = find_images(maps, order[:starts], padding, held=held, most=count)
    found = _refined(maps, centres, min(per_mix, len(centres)), padding, labels, BETWEEN)
    for _ in range(RENEWALS):
        wanted = len(found.centres) if count is None else count
        missing = round((1 + SPARE) * wanted) - len(found.centres)
        if missing <= 0:
            break
        left = unexplained(maps, found, padding)
        worst = left.flatten(1).norm(dim=1).topk(round(UNEXPLAINED * len(maps))).indices
        worst = worst[torch.randperm(len(worst), generator=generator).to(worst.device)]
        further = find_images(
            normalized(left), worst[: starts // 2], padding,
            held=held, most=missing, support=FURTHER_SUPPORT,
        )  # fmt: skip
        scale = found.centres.flatten(1).norm(dim=1).mean()
        centres = torch.cat([found.centres, normalized(further) * scale])
        found = _refined(maps, centres, found.members.shape[1], padding, labels, BETWEEN)
    kept = found.centres[most_explaining(found.centres, found.members, found.strengths, count)]
    return _refined(maps, kept, min(per_mix, len(kept)), padding, labels, REFINEMENTS)


def _refined(
    maps: Tensor,
    centres: Tensor,
    per_mix: int,
    padding: int,
    labels: Tensor | None,
    times: int,
) -> Placed:
    """Alternate assignment and regression ``times`` times."""
    found = assigned(maps, centres, per_mix, padding, None)
    for _ in range(times - 1):
        classes = None
        if labels is not None:
            classes = classes_of_members(labels, found.members, len(centres))
        centres = fitted(maps, found, padding)
        found = assigned(maps, centres, per_mix, padding, classes)
    return found._replace(centres=fitted(maps, found, padding))


def assigned(
    maps: Tensor, centres: Tensor, per_mix: int, padding: int, classes: Classes | None
) -> Placed:
    """The images that fit each encoding best; all are in about the same number of encodings.

    Fits are robust z-scores for each image, as in `assign_by_similarity`.
    """
    fits = best_moves(normalized(centres), maps, padding)
    medians = fits.values.median(dim=1, keepdim=True).values
    spreads = 1.48 * (fits.values - medians).abs().median(dim=1, keepdim=True).values + 1e-9
    scores = ((fits.values - medians) / spreads).T
    if classes is not None:
        scores = classes.forbid(slice(None), scores)
    best = scores.topk(min(CANDIDATES, len(centres)), dim=1)
    members = auction(best.indices, best.values, len(centres), per_mix)
    rows = torch.arange(len(maps), device=maps.device)[:, None]
    # An encoding is moved onto the image, so the image is moved the other way.
    moves = -fits.moves[members, rows].long()
    even = torch.ones(members.shape, device=maps.device)
    found = Placed(centres, members, moves, even)
    each = normalised_strengths(strengths(maps, found, padding), members, len(centres))
    return found._replace(strengths=each)


def strengths(maps: Tensor, found: Placed, padding: int) -> Tensor:
    """(n, k) strengths of the images of each encoding, by least squares."""
    mixing = found.mixing(found.strengths, padding)
    result = torch.empty_like(found.strengths)
    for rows in mixing.blocks:
        held = mixing.each(found.centres, rows).flatten(2)
        gram = held @ held.mT
        penalty = STRENGTH_RIDGE * gram.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-12)
        system = gram + penalty * torch.eye(held.shape[1]).to(gram)
        seen = held @ maps[rows].flatten(1)[:, :, None]
        result[rows] = torch.linalg.solve(system, seen)[:, :, 0]
    result.clamp_(WEAKEST, STRONGEST)
    return result


def fitted(maps: Tensor, found: Placed, padding: int) -> Tensor:
    """(m, c, H, W) features of the images, by ridge regression."""
    mixing = found.mixing(found.strengths, padding)
    even = torch.ones(len(maps), device=maps.device)
    sums = mixing.summed(maps)
    return mixing.solved(sums, even, RIDGE, torch.zeros_like(sums), STEPS)


def unexplained(maps: Tensor, found: Placed, padding: int) -> Tensor:
    """(n, c, H, W) what the images leave of ``maps`` (n, c, H, W)."""
    mixing = found.mixing(found.strengths, padding)
    return torch.cat([maps[rows] - mixing.mixed(found.centres, rows) for rows in mixing.blocks])


def classes_of_members(labels: Tensor, members: Tensor, images: int) -> Classes:
    """The class of each image: the one most over-represented in the encodings that hold it.

    Args:
        labels: (n, c) labels, greater than 0 for each class of an encoding.
        members: (n, k) images of each encoding.
        images: number of images.
    """
    present = labels > 0
    seen = torch.zeros(images, labels.shape[1], device=labels.device)
    held = torch.zeros(images, device=labels.device)
    for column in members.unbind(1):
        seen.index_add_(0, column, present.float())
        held.index_add_(0, column, torch.ones_like(column, dtype=torch.float32))
    share = seen / held.clamp(min=1)[:, None] - present.float().mean(dim=0)
    return Classes(present, share.argmax(dim=1))

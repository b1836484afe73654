"""Clusters of encodings that share a private image, which is at another place in each of them.

As `clustering`, but encodings are compared at all moves. A cluster grows among the encodings that
are most similar to a random start, each moved to where it fits the start best. The mean of its maps
shows the features of one image; all encodings are then compared with it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.reconstruction.clustering import CAP, SUPPORT, grow
from instahide.attacks.reconstruction.cropped.feature_maps import normalized
from instahide.attacks.reconstruction.cropped.moves import best_moves, moved

#: Starts, or images, that are compared with all encodings at a time.
BATCH = 50
#: Encodings similar to a start among which a cluster grows, and size to which it grows.
NEIGHBOURS, GROWN = 60, 8
#: Share of an image's expected encodings that show its features, and that tell its place.
SEEN, PLACED = 0.25, 0.5
#: Share of the weakest member's value that counts for nothing, when the members tell the place.
LEAST_COUNTS = 0.9
#: Largest similarity of two images, and similarity of clusters of the same image. Chosen on tuning
#: victims, as the sizes above.
DISTINCT, SAME = 0.35, 0.5


class _Clusters(NamedTuple):
    """The best ``members`` (a, s), their ``moves`` (a, s, 2) and ``values`` (a, s)."""

    members: Tensor
    moves: Tensor
    values: Tensor


def find_images(
    maps: Tensor,
    starts: Tensor,
    padding: int,
    *,
    held: float,
    most: int | None,
    support: int = SUPPORT,
) -> Tensor:
    """(m, c, H, W) features of the images that several encodings share, in their own frame.

    Args:
        maps: (n, c, H, W) `feature_maps`.
        starts: (s,) encodings from which clusters grow.
        padding: largest move of an image in a mix.
        held: expected number of encodings of an image.
        most: largest number of images; None for all.
        support: number of clusters that must show an image.
    """
    canvases = torch.cat([_grown(maps, some, padding) for some in torch.split(starts, BATCH)])
    first = _fitting(maps, canvases, padding, round(SEEN * held))
    canvases = _means(maps, first, padding)
    kept = _distinct(canvases, first.values.mean(dim=1), padding, most, support)
    found = _fitting(maps, canvases[kept], padding, round(PLACED * held))
    return _in_own_frame(maps, found, padding)


def _grown(maps: Tensor, starts: Tensor, padding: int) -> Tensor:
    """(s, c, H + 2 padding, W + 2 padding) mean maps of a cluster grown from each start."""
    fits = best_moves(maps[starts], maps, 2 * padding)
    fits.values.scatter_(1, starts[:, None], torch.inf)
    width = min(NEIGHBOURS, len(maps))
    near = fits.values.topk(width, dim=1).indices
    found = []
    for start, row in enumerate(near):
        moves = fits.moves[start, row]
        moves[0] = 0  # The start itself comes first.
        canvas = moved(maps[row], moves, 2 * padding, padding)
        alike = canvas.flatten(1) @ canvas.flatten(1).T
        alike.fill_diagonal_(0).clamp_(max=float(alike.flatten().quantile(CAP)))
        members, _ = grow(alike[None], min(GROWN, width))
        found.append(canvas[members[0]].mean(dim=0))
    return torch.stack(found)


def _fitting(maps: Tensor, canvases: Tensor, padding: int, count: int) -> _Clusters:
    """The ``count`` encodings that fit each of ``canvases`` best."""
    found = []
    for some in torch.split(normalized(canvases), BATCH):
        fits = best_moves(some, maps, 2 * padding, padding)
        best = fits.values.topk(min(max(count, 2), len(maps)), dim=1)
        moves = fits.moves.gather(1, best.indices[:, :, None].expand(-1, -1, 2))
        found.append((best.indices, moves, best.values))
    members, places, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    return _Clusters(members, places, values)


def _means(maps: Tensor, clusters: _Clusters, padding: int) -> Tensor:
    """(a, c, H + 2 padding, W + 2 padding) mean maps of the members."""
    return torch.stack(
        [
            moved(maps[members], moves, 2 * padding, padding).mean(dim=0)
            for members, moves in zip(clusters.members, clusters.moves, strict=True)
        ]
    )


def _distinct(
    canvases: Tensor, densities: Tensor, padding: int, most: int | None, support: int
) -> Tensor:
    """(m,) canvases of different images, densest first, that ``support`` canvases show."""
    alike = _likeness(canvases, padding).cpu()
    supported = (alike > SAME).sum(dim=1) >= support
    kept: list[int] = []
    for place in densities.argsort(descending=True).tolist():
        if len(kept) == most:
            break
        if bool(supported[place]) and bool((alike[place, kept] < DISTINCT).all()):
            kept.append(place)
    if not kept:
        kept = [int(densities.argmax())]
    return torch.tensor(kept).to(canvases.device)


def _likeness(canvases: Tensor, padding: int) -> Tensor:
    """(a, a) similarities of canvases, at the best moves."""
    whole = normalized(canvases)
    return best_moves(whole, whole, 2 * padding).values


def _in_own_frame(maps: Tensor, clusters: _Clusters, padding: int) -> Tensor:
    """(m, c, H, W) mean maps of the members, where the image is not moved.

    Each member was moved onto the start: this move and the image's own in the member add up to the
    image's move in the start. Since no own move is above ``padding``, that sum is known.
    """
    found = []
    for members, moves, values in zip(*clusters, strict=True):
        start = _move_of_start(moves.long(), values - LEAST_COUNTS * values.min(), padding)
        own = start - moves.long()
        near = own.abs().amax(dim=1) <= padding
        found.append(moved(maps[members[near]], -own[near], padding, 0).mean(dim=0))
    return torch.stack(found)


def _move_of_start(moves: Tensor, values: Tensor, padding: int) -> Tensor:
    """(2,) by how much the image is moved in the start, from ``moves`` (s, 2) onto it."""
    reach, side = 2 * padding, 2 * padding + 1
    counts = torch.zeros(4 * padding + 1, 4 * padding + 1, device=moves.device)
    counts.index_put_((moves[:, 0] + reach, moves[:, 1] + reach), values, accumulate=True)
    within = F.avg_pool2d(counts[None, None], side, stride=1)[0, 0]
    best = (within >= within.max() * (1 - 1e-5)).nonzero()
    middle = best[(best - best.float().mean(dim=0)).abs().sum(dim=1).argmin()]
    return middle - padding

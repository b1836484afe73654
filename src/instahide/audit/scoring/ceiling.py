"""The ceiling of a reconstruction: what its recovery reaches from a start at the true images.

It tells two failures apart: images that the encodings do not determine, and images that the attack
did not find. Only the scorer can compute it, because it needs the ground truth.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from instahide.attacks.base import EncodingObservation, require
from instahide.attacks.reconstruction.mirrored import with_mirror_images
from instahide.attacks.reconstruction.recovery.coefficients import weights
from instahide.attacks.reconstruction.recovery.moved_mixing import MovedMixing
from instahide.attacks.reconstruction.recovery.phase_retrieval import refine, signed_encodings
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.attacks.reconstruction.recovery.unmasked import least_squares
from instahide.attacks.reconstruction.volumes import as_slices, as_volumes
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.matching import Matches, match_in_order
from instahide.errors import InstaHideError

#: A setting resists an attack only if the attack and the ceiling recover no more than this share.
LOW = 0.05


def refined_truth(observation: EncodingObservation, truth: GroundTruth) -> Tensor:
    """(N, C, H, W) images, or volumes, recovered from the true images, assignment and coefficients.

    And from the true moves, if images were cropped at random.

    Raises:
        InstaHideError: the images were cropped at random, and there is no mask.
    """
    if observation.augmentation.padding and not observation.scheme.mask:
        raise InstaHideError(
            "The ceiling of a reconstruction from cropped images without a mask is unknown.",
            "Use an augmentation with a padding of 0, or a scheme with a mask.",
        )
    if observation.augmentation.flip:
        both = refined_truth(with_mirror_images(observation), with_mirrored_truth(truth))
        return both[: len(truth.images)]
    members, coefficients = (
        values[:, : truth.private_k] for values in (truth.partners, truth.coefficients)
    )
    count = len(truth.images)
    if not observation.scheme.mask:
        return least_squares(observation.encodings, weights(members, coefficients, count))
    scale = observation.encodings.square().mean().sqrt().clamp(min=1e-12)
    start = truth.images.reshape(count, -1, *truth.images.shape[-2:]) / scale
    mixes = SparseMixing(members, coefficients, count)
    if observation.augmentation.padding:
        moves = require(truth.moves)[:, : truth.private_k, :2]
        padding = observation.augmentation.padding
        mixes = MovedMixing(members, coefficients, count, moves, padding)
    found = refine(signed_encodings(as_slices(observation)), mixes, start).images
    return scale * as_volumes(found, truth.images.shape[1:])


def with_mirrored_truth(truth: GroundTruth) -> GroundTruth:
    """SECRET: the ground truth of encodings and, after them, their mirror images.

    Every private image is there twice, as it is and mirrored; see `with_mirror_images`.
    """
    count = len(truth.images)
    mirrored = require(truth.moves)[:, : truth.private_k, 2]
    partners, across = truth.partners.clone(), truth.partners.clone()
    partners[:, : truth.private_k] += count * mirrored
    across[:, : truth.private_k] += count * (1 - mirrored)
    return replace(
        truth,
        images=torch.cat([truth.images, truth.images.flip(-1)]),
        partners=torch.cat([partners, across]),
        coefficients=torch.cat([truth.coefficients, truth.coefficients]),
        negated=torch.cat([truth.negated, truth.negated.flip(-1)]),
        moves=_mirrored_moves(require(truth.moves)),
    )


def _mirrored_moves(moves: Tensor) -> Tensor:
    """(2 n, k, 3) the ``moves`` (n, k, 3) of encodings and of their mirror images."""
    plain = moves.clone()
    plain[:, :, 2] = 0
    return torch.cat([plain, plain * torch.tensor([1, -1, 1])])


def ceiling_of(
    observation: EncodingObservation, truth: GroundTruth, attacked: Matches | None = None
) -> Matches:
    """All private images, as `refined_truth` or as the attack shows them, whichever is better.

    Args:
        observation: the attacked encodings.
        truth: their ground truth.
        attacked: images that an attack recovered. The ceiling of each private image is at least as
            high; None if there are none.
    """
    best = match_in_order(refined_truth(observation, truth), observation, truth)
    return best if attacked is None else _better(best, attacked)


def _better(ceiling: Matches, attacked: Matches) -> Matches:
    """The better of both for each image; one is recognized if it is recognized in either."""
    places = attacked.best_of_each()
    rows = attacked.rows[places]
    higher = attacked.ssim[places] > ceiling.ssim[rows]
    places, chosen = places[higher], rows[higher]
    recovered, ssim, recognized = (
        values.clone() for values in (ceiling.recovered, ceiling.ssim, ceiling.recognized)
    )
    recovered[chosen], ssim[chosen] = attacked.recovered[places], attacked.ssim[places]
    recognized[attacked.rows[attacked.recognized]] = True
    return replace(ceiling, recovered=recovered, ssim=ssim, recognized=recognized)


def resists(recovered: float, ceiling: float, sought: float) -> bool:
    """Whether few of the ``sought`` images were recovered, by the attack and from the truth."""
    return max(recovered, ceiling) <= LOW * sought

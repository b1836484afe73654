"""Scores of the encodings that were recovered from the updates of many rounds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from instahide.attacks.base import require
from instahide.attacks.federated.observation import FederatedObservation, InvertedRounds
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring.gradient_inversion import counts_as_inverted, score_against_encodings
from instahide.utils.optional_deps import requires_extra


def truth_of_rounds(
    found: InvertedRounds, observation: FederatedObservation, truth: GroundTruth
) -> GroundTruth:
    """SECRET: the ground truth of the recovered encodings, in their order.

    An update does not determine the order of its encodings: within each, recovered ones are matched
    to the nearest of those sent.
    """
    rows = _rows(found, observation, require(truth.encodings))
    return replace(
        truth,
        partners=truth.partners[rows],
        coefficients=truth.coefficients[rows],
        negated=truth.negated[rows],
        encodings=require(truth.encodings)[rows],
    )


def score_inversion(
    found: InvertedRounds, of_found: GroundTruth, sent: int, std: tuple[float, ...]
) -> dict[str, float]:
    """How exactly the encodings were recovered.

    ``encodings_recovered`` counts those of the ``encodings_sent`` that count as recovered; see
    `counts_as_inverted`. The PSNR is that of the encodings that the attack used.

    Args:
        found: the finding.
        of_found: its `truth_of_rounds`.
        sent: encodings in all updates.
        std: standard deviation of the normalization.
    """
    each = score_against_encodings(found.encodings, of_found, std)
    psnr, blank = each["encoding_psnr"], each["of_blank_psnr"]
    return {
        "encodings_sent": float(sent),
        "encodings_used": float(len(psnr)),
        "encodings_recovered": float(counts_as_inverted(psnr, blank).sum()),
        "encoding_psnr_mean": float(psnr.mean()),
        "encoding_psnr_median": float(psnr.median()),
        "encoding_psnr_worst": float(psnr.min()),
        "of_blank_psnr_mean": float(blank.mean()),
    }


def _rows(found: InvertedRounds, observation: FederatedObservation, encodings: Tensor) -> Tensor:
    """(n,) int64 the sent encoding of each recovered one."""
    with requires_extra("SciPy", "audit"):
        from scipy.optimize import linear_sum_assignment
    rows = torch.zeros(len(found.encodings), dtype=torch.int64)
    first = 0
    for position, update in enumerate(observation.updates):
        last = first + update.update.training.images
        mine = (found.updates == position).nonzero()[:, 0]
        apart = torch.cdist(
            found.encodings[mine].flatten(1).double(), encodings[first:last].flatten(1).double()
        )
        ours, theirs = map(torch.from_numpy, linear_sum_assignment(apart.square().numpy()))
        rows[mine[ours]] = theirs + first
        first = last
    return rows

"""The score of any finding against the ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from instahide.attacks.any_encoder.observation import Guesses, LinkageScores, MatchScores
from instahide.attacks.base import (
    ClassCoefficients,
    EncodingObservation,
    Finding,
    InvertedUpdate,
    MembershipScores,
    Observation,
    PredictedMasks,
    PublicMatches,
    RecoveredImages,
    require,
)
from instahide.attacks.federated.observation import FederatedObservation, InvertedRounds
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics
from instahide.audit.scoring.any_encoder import guess_figures, linkage_figures, match_figures
from instahide.audit.scoring.federated import score_inversion, truth_of_rounds
from instahide.audit.scoring.gradient_inversion import match_order, score_against_encodings
from instahide.audit.scoring.matching import Matches, match_to_truth
from instahide.audit.scoring.membership import membership_figures
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

#: A public image with a smaller coefficient is not counted as missed.
LEAST_COEFFICIENT = 0.15
#: Random orders of recovered images, to count those that are recognizable by chance.
SHUFFLES = 5


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """The score of one finding.

    Attributes:
        each: one value per recovered image, by metric.
        summary: plain numbers over all images.
        matches: recovered images matched to their originals; None if none were recovered.
    """

    each: Mapping[str, Tensor]
    summary: Mapping[str, float]
    matches: Matches | None


def score(found: Finding, observation: Observation, truth: GroundTruth) -> Score:
    """Compare a finding with the ``truth``; there are figures only for what the attack looked for.

    Images are compared after the best affine map of their channels, sign included; images with an
    assignment to encodings in the better of their `renderings`. Each is compared with the encrypted
    image of its encoding, or with the one of largest coefficient if the attack recovers that.
    Absolute values are compared with absolute values.
    """
    if isinstance(found, InvertedRounds) and isinstance(observation, FederatedObservation):
        return _of_rounds(found, observation, truth)
    if isinstance(found, InvertedUpdate):
        found = match_order(found, require(truth.encodings))
    each: dict[str, Tensor] = {}
    summary: dict[str, float] = {}
    matches = match_to_truth(found, observation, truth)
    if matches is not None:
        each = _images(matches)
        if isinstance(found, InvertedUpdate):
            each |= score_against_encodings(found.images, truth, observation.std)
        summary |= {f"{name}_mean": float(values.mean()) for name, values in each.items()}
        summary |= {f"{name}_best": _best(name, values) for name, values in each.items()}
        summary |= matches.summary() | {"identified_by_chance": 1 / len(truth.images)}
    return Score(each, summary | _others(found, observation, truth, matches), matches)


def _of_rounds(
    found: InvertedRounds, observation: FederatedObservation, truth: GroundTruth
) -> Score:
    """The score of the recovered private images, and of the encodings on the way to them."""
    of_found = truth_of_rounds(found, observation, truth)
    images = score(found.images, observation, of_found)
    sent = len(require(truth.encodings))
    inversion = score_inversion(found, of_found, sent, observation.std)
    return Score(images.each, {**images.summary, **inversion}, images.matches)


def _others(
    found: Finding, observation: Observation, truth: GroundTruth, matches: Matches | None
) -> dict[str, float]:
    """Figures that only some kinds of findings have."""
    match found, observation:
        case RecoveredImages(dominant=True), EncodingObservation() if (
            matches is not None and not isinstance(observation.encoder, Scheme)
        ):
            return _by_chance(found, observation, truth)
        case RecoveredImages(dominant=True), EncodingObservation(encoder=Scheme()) if (
            matches is not None
        ):
            of_encoding = _of_encoding(found, observation, matches.originals)
            return {"ssim_of_encoding": of_encoding, **_by_chance(found, observation, truth)}
        case PublicMatches(), EncodingObservation():
            return _public(found.rows, require(observation.public), truth)
        case ClassCoefficients(), _:
            return _labels(found.coefficients, truth)
        case InvertedUpdate(), _ if found.class_coefficients is not None:
            return _labels(found.class_coefficients, truth)
        case MembershipScores(), _:
            return _membership(found.scores, truth)
        case LinkageScores(), _:
            return linkage_figures(found, truth)
        case MatchScores(), _:
            return match_figures(found, truth)
        case Guesses(), _:
            return guess_figures(found, truth)
        case PredictedMasks(), EncodingObservation():
            known = 0 if observation.known_mixes is None else len(observation.known_mixes)
            rest = truth.negated[known : known + len(found.masks)]
            return {"mask_bits_right": float((found.masks == rest).float().mean())}
        case _:
            return {}


def _images(matches: Matches) -> dict[str, Tensor]:
    recovered, originals = matches.recovered, matches.originals
    return {
        "ssim": matches.ssim,
        "psnr": metrics.psnr(recovered, originals),
        "mse": metrics.mse(recovered, originals),
        "identified": matches.recognized.float(),
    }


def _by_chance(
    found: RecoveredImages, observation: EncodingObservation, truth: GroundTruth
) -> dict[str, float]:
    """Images that count as recognizable if the recovered images are given to other encodings.

    So many are recognizable by chance: a picture that is typical of the private images is similar
    to some of them.
    """
    generator = torch.Generator().manual_seed(0)
    counts = []
    for _ in range(SHUFFLES):
        order = torch.randperm(len(found.images), generator=generator)
        shuffled = match_to_truth(replace(found, images=found.images[order]), observation, truth)
        counts.append(0 if shuffled is None else shuffled.recognizable)
    return {"recognizable_by_chance": sum(counts) / len(counts)}


def _of_encoding(
    found: RecoveredImages, observation: EncodingObservation, originals: Tensor
) -> float:
    """Figures of the encoding itself as a guess of the image; absolute values if masked."""
    seen = observation.encodings[found.target_ids]
    shown = seen.abs() if observation.scheme.mask else seen
    return float(metrics.ssim(metrics.best_affine(shown, originals), originals).mean())


def _best(name: str, values: Tensor) -> float:
    return float(values.min() if name.endswith("mse") else values.max())


def _public(rows: Tensor, public: ImageTable, truth: GroundTruth) -> dict[str, float]:
    """Recall of the public images with large coefficients, and precision of those found.

    Rows of the pool that show the same picture are one.
    """
    real, weights = (whole[:, truth.private_k :] for whole in (truth.partners, truth.coefficients))
    pictures = torch.from_numpy(public.content_ids)
    real, rows = pictures[real], torch.where(rows < 0, -1, pictures[rows])
    hits = (rows[:, :, None] == real[:, None, :]).any(dim=1)
    right = (rows[:, :, None] == real[:, None, :]).any(dim=2)
    counted = weights >= LEAST_COEFFICIENT
    return {
        "public_found": float(hits[counted].float().mean()),
        "public_found_of_all": float(hits.float().mean()),
        "public_right": float(right[rows >= 0].float().mean()),
    }


def _membership(scores: Tensor, truth: GroundTruth) -> dict[str, float]:
    figures = membership_figures(scores, require(truth.learned))
    return {f"membership_{name}": value for name, value in figures.items()}


def _labels(guess: Tensor, truth: GroundTruth) -> dict[str, float]:
    """Errors of the guessed coefficients of the classes."""
    private = slice(0, truth.private_k)
    classes = truth.classes[truth.partners[:, private]]
    real = torch.zeros_like(guess).scatter_add_(1, classes, truth.coefficients[:, private])
    present = real > 0
    return {
        "class_sets_right": float(((guess > 0) == present).all(dim=1).float().mean()),
        "coefficient_error": float((guess - real)[present].abs().mean()),
        "mixes_of_one_class": float((present.sum(dim=1) == 1).float().mean()),
    }

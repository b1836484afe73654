"""What a reconstruction is worth, measured against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from instahide.attacks.base import Observation, Reconstruction, require
from instahide.audit.ground_truth import GroundTruth
from instahide.audit.scoring import metrics
from instahide.audit.scoring.blank_baseline import best_blank
from instahide.audit.scoring.gradient_inversion import match_order, score_against_encodings
from instahide.audit.scoring.membership import membership_figures

#: A public image that is mixed in with less is not counted as missed.
LEAST_COEFFICIENT = 0.15


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """Figures of one reconstruction.

    Attributes:
        each: one value a reconstructed image, by metric.
        summary: plain numbers over all of them.
    """

    each: Mapping[str, Tensor]
    summary: Mapping[str, float]


def score(found: Reconstruction, observation: Observation, truth: GroundTruth) -> Score:
    """Compare all that was ``found`` with the ``truth``; what was not looked for gives no figure.

    Images are compared under the best affine map of their colours, sign included, and belong to the
    encrypted image of their encoding, or to the strongest in it where the attack is after that. If
    they are absolute values, so are their originals here.
    """
    if truth.encodings is not None:
        found = match_order(found, truth.encodings)
    each: dict[str, Tensor] = {}
    summary: dict[str, float] = {}
    if found.images is not None and found.target_ids is not None and len(found.images):
        each = _images(found.images, originals_of(found, observation, truth), found, truth)
        if truth.encodings is not None:
            each |= score_against_encodings(found.images, truth, observation.std)
        summary |= {f"{name}_mean": float(values.mean()) for name, values in each.items()}
        summary |= {f"{name}_best": _best(name, values) for name, values in each.items()}
        summary |= _by_chance(found, truth)
    if found.images is not None and found.dominant:
        summary["ssim_of_encoding"] = _of_encoding(found, observation, truth)
    if found.public_rows is not None:
        summary |= _public(found.public_rows, truth)
    if found.class_coefficients is not None:
        summary |= _labels(found.class_coefficients, truth)
    if found.membership is not None:
        summary |= _membership(found.membership, truth)
    if found.masks is not None:
        known = 0 if observation.known_mixes is None else len(observation.known_mixes)
        rest = truth.negated[known : known + len(found.masks)]
        summary["mask_bits_right"] = float((found.masks == rest).float().mean())
    return Score(each, summary)


def originals_of(found: Reconstruction, observation: Observation, truth: GroundTruth) -> Tensor:
    """(m,) rows of the private images that recovered ones belong to, as `Reconstruction` says."""
    of = require(found.target_ids)
    if found.dominant:
        private = slice(0, truth.private_k)
        largest = truth.coefficients[of, private].argmax(dim=1, keepdim=True)
        return truth.partners[of, private].gather(1, largest)[:, 0]
    return truth.group_targets[of] if observation.groups is not None else truth.partners[of, 0]


def _images(
    images: Tensor, rows: Tensor, found: Reconstruction, truth: GroundTruth
) -> dict[str, Tensor]:
    candidates = truth.images.abs() if found.absolute else truth.images
    original = to_unit_range(candidates)[rows]
    mapped = metrics.best_affine(images, original)
    return {
        "ssim": metrics.ssim(mapped, original),
        "psnr": metrics.psnr(mapped, original),
        "mse": metrics.mse(mapped, original),
        "identified": (metrics.nearest(images, candidates) == rows).float(),
    }


def to_unit_range(images: Tensor) -> Tensor:
    """All ``images`` under one affine map into 0..1, whatever their normalization."""
    low, high = images.amin(), images.amax()
    return (images - low) / (high - low).clamp(min=1e-12)


def _by_chance(found: Reconstruction, truth: GroundTruth) -> dict[str, float]:
    """What knowing nothing gives: a blank picture of every image, and any image for any other.

    ``ssim_of_nothing`` is of each image's mean colour, which noise becomes under the best affine
    map; ``ssim_of_blank`` of the blank picture with the highest SSIM.
    """
    original = to_unit_range(truth.images.abs() if found.absolute else truth.images)
    mean_colour = metrics.best_affine(torch.zeros_like(original), original)
    return {
        "ssim_of_nothing": float(metrics.ssim(mean_colour, original).mean()),
        "ssim_of_blank": float(best_blank(original).mean()),
        "identified_by_chance": 1 / len(original),
    }


def _of_encoding(found: Reconstruction, observation: Observation, truth: GroundTruth) -> float:
    """What the encoding itself shows of the image, or where it is masked its absolute value."""
    seen = observation.encodings[require(found.target_ids)]
    rows = originals_of(found, observation, truth)
    shown = seen.abs() if observation.scheme.mask else seen
    return float(_images(shown, rows, found, truth)["ssim"].mean())


def _best(name: str, values: Tensor) -> float:
    return float(values.min() if name.endswith("mse") else values.max())


def _public(rows: Tensor, truth: GroundTruth) -> dict[str, float]:
    """How many public images that matter were found, and how many of the found are right."""
    real, weights = (whole[:, truth.private_k :] for whole in (truth.partners, truth.coefficients))
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
    """How far the guessed coefficients of the classes are from the real ones."""
    private = slice(0, truth.private_k)
    classes = truth.classes[truth.partners[:, private]]
    real = torch.zeros_like(guess).scatter_add_(1, classes, truth.coefficients[:, private])
    present = real > 0
    return {
        "class_sets_right": float(((guess > 0) == present).all(dim=1).float().mean()),
        "coefficient_error": float((guess - real)[present].abs().mean()),
        "mixes_of_one_class": float((present.sum(dim=1) == 1).float().mean()),
    }

"""The second tab: a quick attack on Mixup and on InstaHide, and its reconstructions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from instahide.app.demo_images import SMALL, DemoImages, Pixels
from instahide.app.html import Panel, heading, paragraph, pictures
from instahide.attacks.averaging import Averaging, AveragingAbsolute
from instahide.attacks.base import (
    Attack,
    EncodingObservation,
    Finding,
    PublicMatches,
    RecoveredImages,
    ThreatModel,
    no_progress,
    require,
)
from instahide.attacks.budget import Budget
from instahide.attacks.public_search import PublicSearch, PublicSearchAbsolute
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.report.summary import LIMITS
from instahide.audit.scoring.scores import Score, score
from instahide.data import ImageTable
from instahide.data.display import denormalize, image_axes, min_max
from instahide.encryption.scheme import Scheme

#: The attack on signed values, and on absolute values, which the mask does not change.
Kinds = tuple[Attack[EncodingObservation], Attack[EncodingObservation]]
ATTACKS: Mapping[str, Kinds] = {
    "Averaging the encodings of an image": (Averaging(), AveragingAbsolute()),
    "Finding the public images": (PublicSearch(), PublicSearchAbsolute()),
}
SCHEMES = {"Mixup": Scheme.cross(4, mask=False), "InstaHide": Scheme.cross(4)}
GRANTED = (
    "The attacker has the encodings, knows which of them show the same image, and has the whole "
    "public pool. The keys are used for this attack only."
)
#: Images whose reconstructions are shown; the first is the chosen one.
_SHOWN = 3


@dataclass(frozen=True, eq=False, repr=False)
class _Attacked:
    """The result of an attack with the data that it is scored against."""

    found: Finding
    observation: EncodingObservation
    truth: GroundTruth
    pool: ImageTable
    scored: Score


def run_attack(demo: DemoImages, chosen: Pixels, attack: str, copies: int) -> str:
    """HTML of the reconstructions of an attack on encodings of ``chosen`` and the demo images.

    Args:
        demo: the other private images, and the public ones.
        chosen: (3, SIDE, SIDE) uint8, the first private image.
        attack: a key of `ATTACKS`.
        copies: encodings of each image.
    """
    images = demo.private(chosen, SMALL)
    threat = ThreatModel(grouped=True, encodings_per_image=copies)
    parts = []
    for name, scheme in SCHEMES.items():
        observation, truth = observe(images, demo.pool, scheme, threat)
        pool = require(observation.public)
        for values, variant in zip(("as they are", "absolute"), ATTACKS[attack], strict=True):
            found = variant.run(observation, Budget(), no_progress)
            attacked = _Attacked(found, observation, truth, pool, score(found, observation, truth))
            text = _words(attacked)
            parts += [heading(f"{name}, values {values}"), paragraph(text)]
            parts.append(pictures(_panels(attacked)))
    return "".join([*parts, paragraph(GRANTED), paragraph(LIMITS)])


def _words(attacked: _Attacked) -> str:
    found, figures = attacked.found, attacked.scored.summary
    if "public_found" in figures:
        chance = attacked.observation.scheme.public_k / len(attacked.pool)
        return (
            f"Of the public images with a large coefficient in a mix, "
            f"{figures['public_found']:.0%} were found; by chance {chance:.1%} would be."
        )
    what = "absolute values" if _absolute(found) else "images"
    return (
        f"The recovered {what} have a mean SSIM of {figures['ssim_mean']:.2f}; the best plain "
        f"colour has {figures['ssim_of_blank']:.2f}, and {figures['identified_mean']:.0%} are "
        f"closest to the right image; by chance {figures['identified_by_chance']:.0%} would be."
    )


def _panels(attacked: _Attacked) -> Iterator[Panel]:
    if isinstance(attacked.found, PublicMatches):
        return _public(attacked, attacked.found)
    return _recovered(attacked)


def _absolute(found: Finding) -> bool:
    return isinstance(found, RecoveredImages) and found.absolute


def _recovered(attacked: _Attacked) -> Iterator[Panel]:
    matched = require(attacked.scored.matches)
    for row in range(_SHOWN):
        place = int((matched.rows == row).nonzero()[0])
        name = "the image" if row == 0 else "another image"
        sought = f"|{name}|" if _absolute(attacked.found) else name
        yield Panel(sought, image_axes(matched.originals[place].numpy()))
        recovered = f"recovered, SSIM {float(matched.ssim[place]):.2f}"
        yield Panel(recovered, image_axes(matched.recovered[place].numpy()))


def _public(attacked: _Attacked, found: PublicMatches) -> Iterator[Panel]:
    """One encoding of the first image, its public images, and those that the attack found."""
    truth, pool = attacked.truth, attacked.pool
    place = int((truth.partners[:, 0] == 0).nonzero()[0])
    yield Panel("an encoding", min_max(attacked.observation.encodings[place].numpy()))
    real = truth.partners[place, truth.private_k :]
    weights = truth.coefficients[place, truth.private_k :]
    for row, weight in zip(real, weights, strict=True):
        yield Panel(f"public, × {float(weight):.2f}", _patch(pool, row))
    for row in found.rows[place]:
        right = "right" if bool((real == row).any()) else "wrong"
        yield Panel(f"found: {right}", _patch(pool, row))


def _patch(pool: ImageTable, row: Tensor) -> NDArray[np.float64]:
    return denormalize(pool.normalized(slice(int(row), int(row) + 1))[0], pool)

"""Linkage: which encodings are of one image, and which encoding belongs to which known image.

Carlini et al. use both to break encoders: a similarity of encodings groups those of one image
(arXiv:2011.05315), and a similarity of encodings and images solves the challenge of NeuraCrypt
(arXiv:2108.07256). Here networks learn the similarities from the attacker's own encodings under
keys of its own, by a contrastive loss (van den Oord, Li and Vinyals, arXiv:1807.03748).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from instahide.attacks.any_encoder.observation import LinkageScores, MatchScores
from instahide.attacks.any_encoder.towers import vectors_of
from instahide.attacks.any_encoder.training import trained_linker, trained_matcher
from instahide.attacks.base import EncodingObservation, Progress, require
from instahide.attacks.budget import Budget
from instahide.attacks.shadow_encodings import missing_shadow

#: Largest number of encodings that are compared with each other.
MOST_COMPARED = 1000
#: Least number of shadow images: a batch compares the encodings of some with each other.
LEAST_SHADOW = 8


@dataclass(frozen=True)
class Linkage:
    """Similarities of encodings, higher if they are of one image.

    Attributes:
        steps: training steps; fewer if the budget ends before.
    """

    steps: int = 1000
    name: str = "linkage"
    title: str = "Linkage of encodings of one image, by a learned similarity"
    paper: str = "After Carlini et al., arXiv:2011.05315, section 4; any encoder: our extension"
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation
    any_encoder: ClassVar[bool] = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if there are encodings of one image, and images like the private ones."""
        copies = observation.threat.encodings_per_image
        if copies is None or copies < 2:
            return "There is only one encoding of each image."
        return _missing(observation)

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> LinkageScores:
        """Score the pairs of all encodings, or of the first `MOST_COMPARED`."""
        began = time.monotonic()
        matcher, trained = trained_linker(
            observation, steps=self.steps, budget=budget, progress=progress
        )
        seen = observation.encodings[:MOST_COMPARED]
        vectors = vectors_of(matcher.encodings, seen)
        statistics = trained.statistics() | {"seconds": time.monotonic() - began}
        return LinkageScores(torch.arange(len(seen)), vectors @ vectors.T, statistics=statistics)


@dataclass(frozen=True)
class KnownImageLinkage:
    """Similarities of encodings and known images, higher if an encoding is of an image.

    Attributes:
        steps: training steps; fewer if the budget ends before.
    """

    steps: int = 1000
    name: str = "linkage-known"
    title: str = "Linkage of encodings with known images, by a learned similarity"
    paper: str = "After Carlini et al., arXiv:2108.07256; any encoder: our extension"
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation
    any_encoder: ClassVar[bool] = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if the attacker has the private images, and images like them."""
        if observation.known_images is None:
            return "The attacker does not have the private images."
        return _missing(observation)

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> MatchScores:
        """Score each encoding with each known image."""
        began, known = time.monotonic(), require(observation.known_images)
        matcher, trained = trained_matcher(
            observation, tuple(known.shape[1:]), steps=self.steps, budget=budget, progress=progress
        )
        of_encodings = vectors_of(matcher.encodings, observation.encodings)
        scores = of_encodings @ vectors_of(matcher.images, known).T
        statistics = trained.statistics() | {"seconds": time.monotonic() - began}
        return MatchScores(scores, statistics=statistics)


def _missing(observation: EncodingObservation) -> str | None:
    """Why a similarity cannot be learned; None if it can."""
    if len(observation) == 0 or observation.encodings.ndim != 4:
        return "The attacker sees no encodings of the form channels, height, width."
    if observation.shadow is not None and len(observation.shadow) < LEAST_SHADOW:
        return f"The attacker has fewer than {LEAST_SHADOW} images like the private ones."
    return missing_shadow(observation)

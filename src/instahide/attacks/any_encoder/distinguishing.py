"""Distinguishing: of two images that the attacker has, which one was encoded?

The game behind the definition of secure encryption (Goldwasser and Micali, 1984), with images of
the data set instead of images of the attacker's choice. An encoder that hides images leaves the
attacker at one half. A similarity of encodings and images is learned as for linkage.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from instahide.attacks.any_encoder.linkage import LEAST_SHADOW
from instahide.attacks.any_encoder.observation import Guesses, PairObservation
from instahide.attacks.any_encoder.towers import vectors_of
from instahide.attacks.any_encoder.training import trained_matcher
from instahide.attacks.base import Progress
from instahide.attacks.budget import Budget
from instahide.attacks.shadow_encodings import missing_shadow


@dataclass(frozen=True)
class Distinguishing:
    """For each pair, how much more similar the encoding is to the second image than to the first.

    Attributes:
        steps: training steps; fewer if the budget ends before.
    """

    steps: int = 1000
    name: str = "distinguishing"
    title: str = "Distinguishing which of two known images was encoded"
    paper: str = "Goldwasser and Micali, 1984; learned similarity: our extension"
    observes: ClassVar[type[PairObservation]] = PairObservation
    any_encoder: ClassVar[bool] = True

    def applies(self, observation: PairObservation) -> str | None:
        """Applies if the attacker has images like the private ones."""
        if len(observation.pairs) == 0 or observation.encodings.ndim != 4:
            return "The attacker sees no encodings of the form channels, height, width."
        if observation.shadow is not None and len(observation.shadow) < LEAST_SHADOW:
            return f"The attacker has fewer than {LEAST_SHADOW} images like the private ones."
        return missing_shadow(observation)

    def run(self, observation: PairObservation, budget: Budget, progress: Progress) -> Guesses:
        """Guess for each pair."""
        began, pairs = time.monotonic(), observation.pairs
        matcher, trained = trained_matcher(
            observation, tuple(pairs.shape[2:]), steps=self.steps, budget=budget, progress=progress
        )
        of_encodings = vectors_of(matcher.encodings, observation.encodings)
        first, second = (
            (of_encodings * vectors_of(matcher.images, pairs[:, place])).sum(dim=1)
            for place in (0, 1)
        )
        statistics = trained.statistics() | {"seconds": time.monotonic() - began}
        return Guesses(second - first, statistics=statistics)

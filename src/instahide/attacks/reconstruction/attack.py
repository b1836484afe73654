"""The attack as a whole: from encodings to images, going round between what and where they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from instahide.attacks.base import Budget, Observation, Progress, Reconstruction
from instahide.attacks.reconstruction.assignment import (
    Classes,
    Templates,
    assign_by_features,
    classes_of,
    feature_scores,
    refined_scores,
)
from instahide.attacks.reconstruction.coefficients import (
    Law,
    from_features,
    from_images,
    from_labels,
    weights,
)
from instahide.attacks.reconstruction.confidence import agreement, likeness
from instahide.attacks.reconstruction.encoder import shipped_encoder
from instahide.attacks.reconstruction.features import edges, edges_of_square, magnitudes
from instahide.attacks.reconstruction.groups import find_groups, prototypes
from instahide.attacks.reconstruction.recovery import recover
from instahide.attacks.reconstruction.unmasked import least_squares, recover_unmasked

#: An image is called recovered from this agreement of two halves on; from the tuning victim.
RECOVERED = 0.5
#: What likeness of features counts beside a template's correlation, and up to which likeness.
FEATURE_WEIGHT, FEATURE_CAP = 0.05, 8.0
#: Pairs of images are all tried up to so many images.
MOST_PAIRED = 400


@dataclass(frozen=True)
class ReconstructionAttack:
    """Recovers private images from many encodings of each, and says which of them are right.

    Attributes:
        rounds: of assignment, coefficients and recovery, before the last recovery.
        features: of encodings, (n, C, H, W) to (n, D) `standardised`; by default the shipped
            encoder's for this shape, or without one `edges_of_square`.
        seed: of the attacker's own choices.
    """

    rounds: int = 2
    features: Callable[[Tensor], Tensor] | None = None
    seed: int = 0
    name: str = "reconstruction"
    title: str = "Private images from many encodings of each, by phase retrieval"
    paper: str = "Carlini et al., Is Private Learning Possible with Instance Encoding? (2011.05315)"

    def applies(self, observation: Observation) -> str | None:
        """It needs several encodings of an image."""
        if observation.threat.encodings_per_image < 3:
            return "There are fewer than 3 encodings of an image to put together."
        return None

    def run(self, observation: Observation, budget: Budget, progress: Progress) -> Reconstruction:
        """Attack; without time for the last rounds, images are as far as they came."""
        return _Run(self, observation, budget, progress).reconstruction()


class _Run:
    """One run: what was observed, and what is believed so far."""

    def __init__(
        self,
        attack: ReconstructionAttack,
        observation: Observation,
        budget: Budget,
        progress: Progress,
    ) -> None:
        self.attack, self.budget, self.progress = attack, budget, progress
        self.scheme, self.began = observation.scheme, time.monotonic()
        self.generator = torch.Generator().manual_seed(attack.seed)
        self.encodings = observation.encodings
        self.sizes = magnitudes(observation.encodings)
        self.scale = observation.encodings.square().mean().sqrt()
        self.labels = observation.labels
        self.soft = observation.labels is not None and observation.threat.labels == "soft"
        self.law = Law.of(self.scheme)
        self.count = round(len(observation) / observation.threat.encodings_per_image)
        self.features = self._features()
        self._say("groups", 0.1)
        holding = len(self.sizes) * self.scheme.private_k / self.count
        groups = find_groups(self.features, self.count, holding, self.generator)
        self.images_found = len(groups)
        self.centres = prototypes(self.features, groups)
        self.scores = feature_scores(self.features, self.centres)
        per_mix = min(self.scheme.private_k, len(groups))
        self.members = assign_by_features(self.scores, per_mix, self._classes())
        self.coefficients = self._coefficients(
            from_features(self.features, self.centres, self.members, self.law)
        )

    def reconstruction(self) -> Reconstruction:
        """Go round from the groups that were found."""
        return self._masked() if self.scheme.mask else self._unmasked()

    def _masked(self) -> Reconstruction:
        images = None
        pairs = self.members.shape[1] == 2 and self.images_found <= MOST_PAIRED
        for number in range(self.attack.rounds):
            self._say(f"recovery, round {number + 1}", 0.2 + 0.5 * number / self.attack.rounds)
            images = self._recovered(images, iterations=4)
            if self.budget.left == 0:
                break
            if pairs:
                self._reassign(images)
            self.coefficients = self._coefficients(self._mixed_guess(images))
        if images is None or self.budget.left > 0:
            self._say("recovery, at last", 0.7)
            images = self._recovered(images, iterations=8)
        self._say("confidence", 0.9)
        sure = agreement(self.sizes, self._weights(), self.generator)
        return self._told(images * self.scale, sure)

    def _unmasked(self) -> Reconstruction:
        self._say("recovery", 0.5)
        images, self.members, self.coefficients = recover_unmasked(
            self.encodings, self.members, self.coefficients, self.images_found
        )
        self._say("confidence", 0.9)
        first, second = (
            least_squares(self.encodings[half], self._weights()[half])
            for half in (slice(0, None, 2), slice(1, None, 2))
        )
        return self._told(images, likeness(first, second))

    def _features(self) -> Tensor:
        self._say("features", 0.0)
        if self.attack.features is not None:
            return self.attack.features(self.encodings)
        if not self.scheme.mask:
            return edges(self.encodings)
        _, *shape = self.encodings.shape
        encoder = shipped_encoder((shape[0], shape[1], shape[2]))
        return (edges_of_square if encoder is None else encoder.features)(self.encodings)

    def _classes(self) -> Classes | None:
        return None if self.labels is None else classes_of(self.scores, self.labels)

    def _coefficients(self, guess: Tensor) -> Tensor:
        """What soft labels say, or else ``guess`` (n, k)."""
        if not self.soft or self.labels is None:
            return guess
        labels = self.labels
        if self.scheme.labels == "renormalised":
            labels = labels * self.law.total
        return from_labels(labels, classes_of(self.scores, labels).of, self.members, guess)

    def _mixed_guess(self, images: Tensor) -> Tensor:
        """Half from features, half from images: their errors are of different kinds."""
        features = from_features(self.features, self.centres, self.members, self.law)
        seen = from_images(self.sizes, images, self.members, features, self.law, self.scheme.c1)
        return (features + seen) / 2

    def _reassign(self, images: Tensor) -> None:
        templates, classes = Templates(self.sizes, images), self._classes()
        scores, self.centres = refined_scores(self.features, self._weights())
        self.scores = (self.scores + scores) / 2
        capped = self.scores.clamp(max=FEATURE_CAP)
        first, second = templates.pairs.T
        total = templates.of_pairs_at_best()
        total += FEATURE_WEIGHT * (capped[:, first] + capped[:, second])
        if classes is not None:
            total.masked_fill_(~classes.allow(templates.pairs), -1e6)
        self.members = templates.pairs[total.argmax(dim=1)]

    def _recovered(self, images: Tensor | None, iterations: int) -> Tensor:
        return recover(
            self.sizes,
            self._weights(),
            generator=self.generator,
            start=images,
            iterations=iterations,
        )

    def _weights(self) -> Tensor:
        return weights(self.members, self.coefficients, self.images_found)

    def _told(self, images: Tensor, sure: Tensor) -> Reconstruction:
        right = sure >= RECOVERED
        self._say("done", 1.0)
        return Reconstruction(
            {
                "private_images": float(self.count),
                "groups": float(self.images_found),
                "recovered": float(right.sum()),
                "mean_confidence": float(sure.mean()),
                "seconds": time.monotonic() - self.began,
            },
            images=images,
            members=self.members,
            coefficients=self.coefficients,
            confidence=sure,
        )

    def _say(self, what: str, share: float) -> None:
        self.progress(what, share)

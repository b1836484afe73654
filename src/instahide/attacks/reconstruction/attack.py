"""The attack as a whole: from encodings to images, going round between what and where they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from instahide.attacks.base import (
    AssignedImages,
    Budget,
    EncodingObservation,
    Progress,
    require,
)
from instahide.attacks.reconstruction.assignment import (
    Classes,
    Templates,
    assign_by_features,
    assign_by_templates,
    classes_of,
    feature_scores,
    refined_scores,
)
from instahide.attacks.reconstruction.clustering import find_clusters, prototypes
from instahide.attacks.reconstruction.confidence import agreement, likeness
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.pair_encoder.selection import default_features
from instahide.attacks.reconstruction.recovery.coefficients import (
    CoefficientDistribution,
    from_features,
    from_images,
    from_labels,
    weights,
)
from instahide.attacks.reconstruction.recovery.phase_retrieval import recover
from instahide.attacks.reconstruction.recovery.unmasked import least_squares, recover_unmasked
from instahide.attacks.reconstruction.state import (
    AttackState,
    fingerprint,
    load_state,
    save_state,
)

#: An image is called recovered from this agreement of two halves on; from the tuning victim.
RECOVERED = 0.5
#: What likeness of features counts beside a template's correlation, and up to which likeness.
FEATURE_WEIGHT, FEATURE_CAP = 0.05, 8.0
#: Up to so many images are tried in pairs: what all pairs have in common would take hours for more.
MOST_PAIRED = 5000
#: Steps have generators of their own; there are fewer steps than this.
STEPS = 1000


@dataclass(frozen=True)
class ReconstructionAttack:
    """Recovers private images from many encodings of each, and says which of them are right.

    Attributes:
        rounds: of assignment, coefficients and recovery, before the last recovery.
        features: of encodings, (n, C, H, W) to (n, D) `standardised`; by default the shipped
            encoder's for this shape, or without one `edges_of_square`.
        training: seconds to train an encoder for on the shadow images that the threat model
            grants, at most half the budget; 0 to take what is shipped.
        folder: where to keep what is believed after every step, for a later run on the same
            encodings to go on from. It will hold private images as far as they are recovered.
        seed: of the attacker's own choices.
        device: to compute on; by default a GPU, if there is one.
    """

    rounds: int = 2
    features: Callable[[Tensor], Tensor] | None = None
    training: float = 0.0
    folder: Path | None = None
    seed: int = 0
    device: torch.device | str | None = None
    name: str = "reconstruction"
    title: str = "Private images from many encodings of each, by phase retrieval"
    paper: str = "Carlini et al., Is Private Learning Possible with Instance Encoding? (2011.05315)"
    observes: ClassVar[type[EncodingObservation]] = EncodingObservation

    def applies(self, observation: EncodingObservation) -> str | None:
        """It needs several encodings of an image, and shadow images to train on if it is to."""
        copies = observation.threat.encodings_per_image
        if copies is not None and copies < 3:
            return "There are fewer than 3 encodings of an image to put together."
        if self.training > 0 and observation.shadow is None:
            return "It is to train on shadow images, and the threat model grants none."
        return None

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> AssignedImages:
        """Attack; without time for the last steps, images are as far as they came.

        Raises:
            InstaHideError: what is in ``folder`` is damaged, or of another attack.
        """
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        labels = observation.labels
        there = replace(
            observation,
            encodings=observation.encodings.to(device),
            labels=None if labels is None else labels.to(device),
        )
        return _Run(self, there, budget, progress).reconstruction()


class _Run:
    """One run: what was observed, and what is believed so far."""

    def __init__(
        self,
        attack: ReconstructionAttack,
        observation: EncodingObservation,
        budget: Budget,
        progress: Progress,
    ) -> None:
        self.attack, self.budget, self.say = attack, budget, progress
        self.scheme, self.began = observation.scheme, time.monotonic()
        self.encodings = observation.encodings
        self.sizes = magnitudes(observation.encodings)
        self.scale = observation.encodings.square().mean().sqrt()
        self.labels = observation.labels
        self.soft = observation.labels is not None and observation.threat.labels == "soft"
        self.law = CoefficientDistribution.of(self.scheme)
        copies = observation.threat.encodings_per_image
        self.count = None if copies is None else round(len(observation) / copies)
        self.name = fingerprint(observation, attack.rounds, attack.seed)
        kept = None if attack.folder is None else load_state(attack.folder, self.name)
        self.features = self._features(observation)
        self.beliefs = kept or self._first_beliefs()
        self._keep()

    def reconstruction(self) -> AssignedImages:
        """Go on from what is believed."""
        return self._masked() if self.scheme.mask else self._unmasked()

    def _masked(self) -> AssignedImages:
        beliefs = self.beliefs
        steps = list(self._steps())
        for number, (what, step) in enumerate(steps, 1):
            if number <= beliefs.step:
                continue
            if beliefs.images is not None and self.budget.left == 0:
                break
            self.say(what, 0.2 + 0.7 * number / (len(steps) + 1))
            step(self._generator(number))
            beliefs.step, beliefs.confidence = number, None
            self._keep()
        if beliefs.confidence is None:
            self.say("confidence", 0.9)
            images, generator = require(beliefs.images), self._generator(STEPS - 1)
            beliefs.confidence = agreement(self.sizes, beliefs.weights(), images, generator)
            self._keep()
        return self._told()

    def _steps(self) -> Iterator[tuple[str, Callable[[torch.Generator], None]]]:
        for number in range(1, self.attack.rounds + 1):
            yield f"recovery, round {number}", lambda g: self._recover(g, iterations=4)
            yield f"assignment, round {number}", lambda g: self._reassign()
        yield "recovery, at last", lambda g: self._recover(g, iterations=8)

    def _unmasked(self) -> AssignedImages:
        beliefs = self.beliefs
        self.say("recovery", 0.5)
        images, beliefs.assignment, beliefs.coefficients = recover_unmasked(
            self.encodings,
            beliefs.assignment,
            beliefs.coefficients,
            len(beliefs.centres),
            self.count,
        )
        mixed = weights(beliefs.assignment, beliefs.coefficients, len(images))
        beliefs.images = images / self.scale
        self.say("confidence", 0.9)
        first, second = (
            least_squares(self.encodings[half], mixed[half])
            for half in (slice(0, None, 2), slice(1, None, 2))
        )
        beliefs.confidence = likeness(first, second)
        return self._told()

    def _features(self, observation: EncodingObservation) -> Tensor:
        self.say("features", 0.0)
        if self.attack.features is not None:
            return self.attack.features(self.encodings).to(self.encodings.device)
        seconds = min(self.attack.training, self.budget.left / 2)
        training = self.budget.part(seconds) if seconds > 0 else None
        return default_features(observation, training, self.say, self.attack.folder)

    def _first_beliefs(self) -> AttackState:
        self.say("groups", 0.1)
        private_k = self.scheme.private_k
        groups = find_clusters(self.features, self.count, private_k, self._generator(0))
        centres = prototypes(self.features, groups)
        scores = feature_scores(self.features, centres)
        per_mix = min(private_k, len(groups))
        members = assign_by_features(scores, per_mix, self._classes(scores))
        guess = from_features(self.features, centres, members, self.law)
        beliefs = AttackState(centres, scores, members, guess)
        beliefs.coefficients = self._coefficients(beliefs, guess)
        return beliefs

    def _classes(self, scores: Tensor) -> Classes | None:
        return None if self.labels is None else classes_of(scores, self.labels)

    def _coefficients(self, beliefs: AttackState, guess: Tensor) -> Tensor:
        """What soft labels say, or else ``guess`` (n, k)."""
        if not self.soft or self.labels is None:
            return guess
        labels = self.labels
        if self.scheme.label_mode == "renormalised":
            labels = labels * self.law.total
        of = classes_of(beliefs.scores, labels).of
        return from_labels(labels, of, beliefs.assignment, guess)

    def _reassign(self) -> None:
        """Members by what images look like, where there are pairs; then coefficients."""
        beliefs, images = self.beliefs, require(self.beliefs.images)
        if beliefs.assignment.shape[1] == 2 and len(beliefs.centres) <= MOST_PAIRED:
            self._reassign_pairs(images)
        beliefs.coefficients = self._coefficients(beliefs, self._mixed_guess(images))

    def _reassign_pairs(self, images: Tensor) -> None:
        beliefs, templates = self.beliefs, Templates(self.sizes, images)
        classes = self._classes(beliefs.scores)
        scores, beliefs.centres = refined_scores(self.features, beliefs.weights())
        beliefs.scores = (beliefs.scores + scores) / 2
        capped = FEATURE_WEIGHT * beliefs.scores.clamp(max=FEATURE_CAP)
        beliefs.assignment = assign_by_templates(templates, capped, classes)

    def _mixed_guess(self, images: Tensor) -> Tensor:
        """Half from features, half from images: their errors are of different kinds."""
        members = self.beliefs.assignment
        features = from_features(self.features, self.beliefs.centres, members, self.law)
        seen = from_images(self.sizes, images, members, features, self.law, self.scheme.c1)
        return (features + seen) / 2

    def _recover(self, generator: torch.Generator, *, iterations: int) -> None:
        self.beliefs.images = recover(
            self.sizes,
            self.beliefs.weights(),
            generator=generator,
            start=self.beliefs.images,
            iterations=iterations,
        )

    def _generator(self, step: int) -> torch.Generator:
        """Each step has its own, so that a run that was interrupted goes on as it would have."""
        return torch.Generator().manual_seed(STEPS * self.attack.seed + step)

    def _keep(self) -> None:
        self.beliefs.canonicalize(self.encodings.device)
        if self.attack.folder is not None and self.scheme.mask:
            save_state(self.attack.folder, self.beliefs, self.name)

    def _told(self) -> AssignedImages:
        beliefs, sure = self.beliefs, require(self.beliefs.confidence)
        self.say("done", 1.0)
        return AssignedImages(
            (require(beliefs.images) * self.scale).cpu(),
            beliefs.assignment.cpu(),
            beliefs.coefficients.cpu(),
            sure.cpu(),
            statistics={
                "groups": float(len(beliefs.centres)),
                "recovered": float((sure >= RECOVERED).sum()),
                "mean_confidence": float(sure.mean()),
                "seconds": time.monotonic() - self.began,
            },
        )

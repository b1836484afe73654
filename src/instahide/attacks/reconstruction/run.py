"""One run of the reconstruction attack: its steps, and the state that they leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from instahide.attacks.base import AssignedImages, EncodingObservation, Progress, require
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.assignment import (
    Classes,
    assign_by_features,
    classes_of,
    reassigned,
)
from instahide.attacks.reconstruction.clustering import find_clusters
from instahide.attacks.reconstruction.confidence import confidence, likeness
from instahide.attacks.reconstruction.feature_model import fit_features
from instahide.attacks.reconstruction.pair_encoder.compression import compressed
from instahide.attacks.reconstruction.pair_encoder.features import root_mean_square
from instahide.attacks.reconstruction.pair_encoder.selection import default_features
from instahide.attacks.reconstruction.recovery.coefficients import (
    CoefficientDistribution,
    from_labels,
    from_recovery,
    weights,
)
from instahide.attacks.reconstruction.recovery.phase_retrieval import (
    Recovery,
    SignedEncodings,
    recover,
    signed_encodings,
)
from instahide.attacks.reconstruction.recovery.unmasked import least_squares, recover_unmasked
from instahide.attacks.reconstruction.state import (
    AttackState,
    fingerprint,
    load_state,
    save_state,
)

#: Images with at least this confidence are counted as recovered; chosen on the tuning victims.
RECOVERED = 0.8
#: Number of generators reserved per seed, more than the number of steps.
STEPS = 1000


@dataclass(frozen=True)
class Options:
    """What a run does, whatever it attacks.

    Attributes:
        rounds: number of rounds of recovery, assignment and coefficients before the last recovery.
        features: computes `standardised` features (n, D) of encodings (n, C, H, W), of volumes with
            their slices as channels; by default those of the shipped encoder for this shape, or
            `edges_of_square` if there is none.
        training: seconds to train an encoder on the shadow images that the threat model grants, at
            most half the budget; 0 to use the shipped encoder.
        folder: folder in which to save the state after every step, so that a later run on the same
            encodings can resume. It will contain private images as far as they are recovered.
        seed: seed of the attacker's random choices.
    """

    rounds: int = 2
    features: Callable[[Tensor], Tensor] | None = None
    training: float = 0.0
    folder: Path | None = None
    seed: int = 0


class Run:
    """One run: the observation and the state of the attack."""

    def __init__(
        self,
        options: Options,
        observation: EncodingObservation,
        budget: Budget,
        progress: Progress,
    ) -> None:
        self.options, self.budget, self.progress = options, budget, progress
        self.scheme, self.began = observation.scheme, time.monotonic()
        self.observation, self.encodings = observation, observation.encodings
        self.scale = root_mean_square(observation.encodings)
        self.labels = observation.labels
        self.soft = observation.labels is not None and observation.threat.labels == "soft"
        self.distribution = CoefficientDistribution.of(self.scheme)
        copies = observation.threat.encodings_per_image
        self.count = None if copies is None else round(len(observation) / copies)
        self.name = fingerprint(observation, options.rounds, options.seed)
        kept = None if options.folder is None else load_state(options.folder, self.name)
        self.features = self._features(observation)
        self.state = kept or self._initial_state()
        self._keep()

    @cached_property
    def signed(self) -> SignedEncodings:
        """The encodings, with the signs that a network predicts."""
        return signed_encodings(self.observation)

    def reconstruction(self) -> AssignedImages:
        """Continue from the current state."""
        return self._masked() if self.scheme.mask else self._unmasked()

    def _masked(self) -> AssignedImages:
        state = self.state
        steps = list(self._steps())
        for number, (what, step) in enumerate(steps, 1):
            if number <= state.step:
                continue
            if state.images is not None and self.budget.over:
                break
            self.progress(what, 0.2 + 0.7 * number / (len(steps) + 1))
            step(self._generator(number))
            state.step, state.confidence = number, None
            self._keep()
        if state.confidence is None:
            self.progress("confidence", 0.9)
            images, generator = require(state.images), self._generator(STEPS - 1)
            state.confidence = confidence(self.signed, state.mixes(), images, generator)
            self._keep()
        return self._result()

    def _steps(self) -> Iterator[tuple[str, Callable[[torch.Generator], object]]]:
        for number in range(1, self.options.rounds + 1):
            yield f"recovery and assignment, round {number}", self._round
        yield "final recovery", self._recover

    def _unmasked(self) -> AssignedImages:
        state = self.state
        self.progress("recovery", 0.5)
        images, state.assignment, state.coefficients = recover_unmasked(
            self.encodings,
            state.assignment,
            state.coefficients,
            len(state.centres),
            self.count,
        )
        mixed = weights(state.assignment, state.coefficients, len(images))
        state.images = images / self.scale
        self.progress("confidence", 0.9)
        first, second = (
            least_squares(self.encodings[half], mixed[half])
            for half in (slice(0, None, 2), slice(1, None, 2))
        )
        state.confidence = likeness(first, second)
        return self._result()

    def _features(self, observation: EncodingObservation) -> Tensor:
        self.progress("features", 0.0)
        if self.options.features is not None:
            found = self.options.features(self.encodings).to(self.encodings.device)
            return compressed(found, lambda block: block)
        training, folder = self._training(), self.options.folder
        return default_features(observation, training, self.progress, folder)

    def _training(self) -> Budget | None:
        """The budget of the training of an encoder; None for no training."""
        seconds = min(self.options.training, self.budget.left / 2)
        return self.budget.part(seconds) if seconds > 0 else None

    def _initial_state(self) -> AttackState:
        self.progress("groups", 0.1)
        private_k = self.scheme.private_k
        groups = find_clusters(self.features, self.count, private_k, self._generator(0))
        found, centres = assign_by_features(
            self.features, groups, min(private_k, len(groups)), self.distribution.strength_variance,
            count=self.count, labels=self.labels,
        )  # fmt: skip
        guess = self.distribution.from_strengths(found.strengths)
        state = AttackState(centres, found.members, guess)
        state.coefficients = self._coefficients(state, guess)
        return state

    def _classes(self, state: AttackState, labels: Tensor) -> Classes:
        """The classes of the images, from ``labels`` (n, c) of the encodings."""
        return classes_of(self.features, state.centres, labels)

    def _coefficients(self, state: AttackState, guess: Tensor) -> Tensor:
        """(n, k) coefficients from soft labels, or else ``guess`` (n, k)."""
        if not self.soft or self.labels is None:
            return guess
        labels = self.labels
        if self.scheme.label_mode == "renormalised":
            labels = labels * self.distribution.total
        of = self._classes(state, labels).of
        return from_labels(labels, of, state.assignment, guess)

    def _round(self, generator: torch.Generator) -> None:
        """Recover images, then reassign them and recompute the coefficients."""
        state, mixes = self.state, self.state.mixes()
        recovery = self._recover(generator)
        features = self.distribution.from_strengths(self._reassign(state))
        edges = from_recovery(recovery, mixes, state.mixes(), self.distribution)
        # Their errors differ in kind.
        state.coefficients = self._coefficients(state, (features + edges) / 2)

    def _reassign(self, state: AttackState) -> Tensor:
        """Assign the images again, by features; return their (n, k) strengths."""
        strengths = state.coefficients.square()
        model = fit_features(
            self.features, state.assignment, strengths / strengths.mean(), len(state.centres),
            self.distribution.strength_variance,
        )  # fmt: skip
        state.centres = model.directions
        known = None if self.labels is None else self._classes(state, self.labels)
        found = reassigned(model, known)
        state.assignment = found.members
        return found.strengths

    def _recover(self, generator: torch.Generator) -> Recovery:
        recovery = recover(self.signed, self.state.mixes(), generator=generator)
        self.state.images = recovery.images
        return recovery

    def _generator(self, step: int) -> torch.Generator:
        """A generator for this step, so that a resumed run gives the same result."""
        return torch.Generator().manual_seed(STEPS * self.options.seed + step)

    def _keep(self) -> None:
        self.state.canonicalize(self.encodings.device)
        if self.options.folder is not None and self.scheme.mask:
            save_state(self.options.folder, self.state, self.name)

    def _result(self) -> AssignedImages:
        state, sure = self.state, require(self.state.confidence)
        self.progress("done", 1.0)
        return AssignedImages(
            (require(state.images) * self.scale).cpu(),
            state.assignment.cpu(),
            state.coefficients.cpu(),
            sure.cpu(),
            statistics={
                "groups": float(len(state.centres)),
                "recovered": float((sure >= RECOVERED).sum()),
                "mean_confidence": float(sure.mean()),
                "seconds": time.monotonic() - self.began,
            },
        )

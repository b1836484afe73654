"""One run of the reconstruction attack on encodings of randomly cropped images."""

from __future__ import annotations

from torch import Tensor

from instahide.attacks.base import EncodingObservation, require
from instahide.attacks.reconstruction.assignment import Classes
from instahide.attacks.reconstruction.cropped.assignment import (
    Placed,
    assigned,
    classes_of_members,
    fitted,
    place_images,
)
from instahide.attacks.reconstruction.cropped.feature_maps import feature_maps
from instahide.attacks.reconstruction.pair_encoder.selection import chosen_encoder
from instahide.attacks.reconstruction.run import Run
from instahide.attacks.reconstruction.state import AttackState


class CroppedRun(Run):
    """A run in which every image of an encoding has a move of its own.

    The features of an encoding are maps, and those of an image too, in the image's own frame.
    """

    @property
    def padding(self) -> int:
        """The largest move."""
        return self.observation.augmentation.padding

    def _features(self, observation: EncodingObservation) -> Tensor:
        self.progress("features", 0.0)
        encoder = chosen_encoder(observation, self._training(), self.progress, self.options.folder)
        return feature_maps(self.encodings, encoder, self.padding)

    def _initial_state(self) -> AttackState:
        self.progress("groups", 0.1)
        found = place_images(
            self.features, self.scheme.private_k, self.padding, self._generator(0),
            count=self.count, labels=self.labels,
        )  # fmt: skip
        guess = self.distribution.from_strengths(found.strengths)
        state = AttackState(found.centres, found.members, guess, moves=found.moves)
        state.coefficients = self._coefficients(state, guess)
        return state

    def _classes(self, state: AttackState, labels: Tensor) -> Classes:
        return classes_of_members(labels, state.assignment, len(state.centres))

    def _reassign(self, state: AttackState) -> Tensor:
        moves, strengths = require(state.moves), state.coefficients.square()
        known = Placed(state.centres, state.assignment, moves, strengths / strengths.mean())
        classes = None if self.labels is None else self._classes(state, self.labels)
        centres = fitted(self.features, known, self.padding)
        per_mix = state.assignment.shape[1]
        found = assigned(self.features, centres, per_mix, self.padding, classes)
        state.centres, state.assignment, state.moves, _ = found
        return found.strengths

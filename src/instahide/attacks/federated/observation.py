"""What the server of a federation sees of a participant, and what an attack on it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from instahide.attacks.base import AssignedImages, Finding, Observation, UpdateObservation


@dataclass(frozen=True, eq=False, repr=False)
class FederatedObservation(Observation):
    """The updates of one participant over many rounds, as the server of a federation sees them.

    Attributes:
        updates: one observation for each update, in order, each with the network before it.
    """

    updates: tuple[UpdateObservation, ...]

    absent: ClassVar[str] = "The attacker sees no rounds of updates."


@dataclass(frozen=True, eq=False, repr=False)
class InvertedRounds(Finding):
    """Encodings recovered from the updates of many rounds, and private images recovered from them.

    Attributes:
        encodings: (n, C, H, W) float32 encodings, normalized.
        updates: (n,) int64 the update in which each was found, by its position. An update has all
            of its encodings here, in any order, or none.
        images: private images, and their assignment to these encodings.
        labels: (n, classes) float32 labels of the encodings; None if they were not recovered.
    """

    encodings: Tensor
    updates: Tensor
    images: AssignedImages
    labels: Tensor | None = None

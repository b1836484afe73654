"""What attackers of any encoder see of a pair of images, and what attacks on any encoder find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from instahide.attacks.base import Finding, Observation
from instahide.data import ImageTable


@dataclass(frozen=True, eq=False, repr=False)
class PairObservation(Observation):
    """Encodings of one image of each pair: the attacker has both images, and guesses which.

    Attributes:
        pairs: (t, 2, C, H, W) float32, normalized.
        encodings: (t, ...) float32, an encoding of one image of each pair.
        labels: (t, classes) float32 labels of the encodings; None if the threat model grants none.
        public: the public pool, if the threat model grants it.
        shadow: images similar to the private ones, none of them private.
    """

    pairs: Tensor
    encodings: Tensor
    labels: Tensor | None = None
    public: ImageTable | None = None
    shadow: ImageTable | None = None

    absent: ClassVar[str] = "The attacker has no pairs of images to distinguish."


@dataclass(frozen=True, eq=False, repr=False)
class LinkageScores(Finding):
    """How likely two encodings are of one image.

    Attributes:
        rows: (m,) int64 encodings that were compared.
        scores: (m, m) float32, higher if two of them are more likely of one image.
    """

    rows: Tensor
    scores: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class MatchScores(Finding):
    """``scores`` (n, N): higher if an encoding is more likely of a known image.

    The known images are in the order of ``EncodingObservation.known_images``.
    """

    scores: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Guesses(Finding):
    """``scores`` (t,): positive if the second image of a pair was more likely encoded.

    Nothing follows from a score of 0 or NaN: the pair counts half, as a coin would be right.
    """

    scores: Tensor

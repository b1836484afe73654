"""What an attacker sees, how long it may take, and what it hands back.

An attack gets an `Observation` of one kind and nothing else, and hands back a `Finding`. The truth
stays with whoever scores it, in `instahide.audit`, which this package does not know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

#: Called with what is being done and the share of it that is done, from 0 to 1.
Progress = Callable[[str, float], None]

T = TypeVar("T")
#: What an attack observes.
Seen = TypeVar("Seen", bound="Observation")


@dataclass(frozen=True)
class ThreatModel:
    """What the attacker has, besides the encodings and the scheme, which are always public.

    Attributes:
        labels: of the encodings: "soft" as published, "coarse" for only which classes are in
            each, "none".
        public: "images" for the public pool itself, "distribution" for other images of its kind,
            "none".
        shadow: whether the attacker has other images of the private images' kind.
        grouped: whether it is known which encodings began with the same private image.
        known_mixes: of the first so many encodings the attacker knows the mix before the mask:
            its own images, or ones that it has found out.
        encodings_per_image: that each private image is encrypted into; None where the attacker is
            not told, and so does not know how many private images there are.
        update: whether the attacker holds a network and what a participant sent of training it,
            as a federation's server does, instead of the encodings.

    Raises:
        InstaHideError: a number out of its range.
    """

    labels: Literal["soft", "coarse", "none"] = "soft"
    public: Literal["images", "distribution", "none"] = "images"
    shadow: bool = False
    grouped: bool = False
    known_mixes: int = 0
    encodings_per_image: int | None = 1
    update: bool = False

    def __post_init__(self) -> None:
        copies = self.encodings_per_image
        if (copies is not None and copies < 1) or self.known_mixes < 0:
            raise InstaHideError(
                f"{copies} encodings of an image and {self.known_mixes} known "
                "mixes are not something to observe.",
                "Use at least 1 encoding of an image, and 0 or more known mixes.",
            )


@dataclass(frozen=True)
class LocalTraining:
    """How a participant trains before it sends an update; agreed on by all, and so public.

    Attributes:
        images: encodings that it trains on.
        batch_size: encodings in a step; the batches go round the images in order.
        steps: of plain gradient descent on the soft-label cross-entropy, after which it sends the
            change of the weights; 0 if it sends the gradient of one batch.
        learning_rate: of the steps.
        train_mode: whether batch norm uses the statistics of the batch (train mode) or the running
            ones (eval mode).

    Raises:
        InstaHideError: a number out of its range.
    """

    images: int = 1
    batch_size: int = 1
    steps: int = 0
    learning_rate: float = 0.01
    train_mode: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.batch_size <= self.images and self.steps >= 0 < self.learning_rate):
            raise InstaHideError(
                f"{self.steps} steps at a rate of {self.learning_rate}, with batches of "
                f"{self.batch_size} of {self.images} images, cannot be trained.",
                "Use batches of 1 image or more and no more than there are, and a positive rate.",
            )

    def batches(self) -> Iterator[Tensor]:
        """(batch_size,) places of the images in each step, or in the one gradient."""
        for step in range(max(self.steps, 1)):
            yield (torch.arange(self.batch_size) + step * self.batch_size) % self.images


@dataclass(frozen=True, eq=False, repr=False)
class Update:
    """What a participant sent.

    Attributes:
        values: by parameter's name: its gradient, or its change over the local steps.
        training: how it came about.
        buffers: by buffer's name: its change, where a participant sends its batch norm statistics
            too; empty if it does not.
    """

    values: Mapping[str, Tensor]
    training: LocalTraining
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Observation:
    """What every attacker knows. What it sees besides is in one of the three kinds below.

    Attributes:
        scheme: how the encodings were made.
        mean: of the normalization, one a channel.
        std: of the normalization, one a channel.
        threat: what is granted.
    """

    scheme: Scheme
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threat: ThreatModel

    #: Why an attack on this kind cannot be run where there is none.
    absent: ClassVar[str] = "There is nothing that it could be run on."

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.scheme}, {self.threat})"


@dataclass(frozen=True, eq=False, repr=False)
class EncodingObservation(Observation):
    """n encodings, and what the threat model grants; what it does not grant is None.

    Attributes:
        encodings: (n, C, H, W) float32.
        labels: (n, classes) float32: soft, or 1 for each class that is there.
        public: the public pool, or other images of its kind, as ``threat.public`` says.
        shadow: images of the private images' kind, none of them private.
        groups: (n,) int64; encodings of one number began with the same private image. The number
            itself means nothing.
        known_mixes: (m, C, H, W) float32, the mixes of the first m encodings before the mask.
    """

    encodings: Tensor
    labels: Tensor | None = None
    public: ImageTable | None = None
    shadow: ImageTable | None = None
    groups: Tensor | None = None
    known_mixes: Tensor | None = None

    absent: ClassVar[str] = "The attacker sees no encodings."

    def __len__(self) -> int:
        return len(self.encodings)

    def owners(self, first: int = 0) -> Tensor:
        """(n - first,) what the encodings from ``first`` on are of, see `RecoveredImages`."""
        return torch.arange(first, len(self)) if self.groups is None else self.groups[first:]

    def __repr__(self) -> str:
        return f"EncodingObservation({len(self)} encodings of {self.scheme}, {self.threat})"


@dataclass(frozen=True, eq=False, repr=False)
class UpdateObservation(Observation):
    """A network, and what a participant sent of training it, as a federation's server sees it.

    Attributes:
        shape: (C, H, W) of an encoding.
        network: as it was before the update.
        update: what the participant sent.
        labels: (n, classes) float32 of the encodings behind the update, in their order; None if the
            threat model does not grant them.
    """

    shape: tuple[int, ...]
    network: nn.Module
    update: Update
    labels: Tensor | None = None

    absent: ClassVar[str] = "The attacker sees no update of a network."


@dataclass(frozen=True, eq=False, repr=False)
class NetworkObservation(Observation):
    """A trained network, and images of which the attacker asks whether it was trained on them.

    Attributes:
        network: trained on encodings.
        candidates: images with their labels.
        public: the public pool, if the threat model grants it.
    """

    network: nn.Module
    candidates: ImageTable
    public: ImageTable | None = None

    absent: ClassVar[str] = "The attacker has no trained network, or no images to ask it about."


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Finding:
    """What an attack found: plain numbers, and in the kinds below what can be scored.

    Attributes:
        statistics: what the attack knows by itself, without the truth.
    """

    statistics: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.statistics)})"


@dataclass(frozen=True, eq=False, repr=False)
class RecoveredImages(Finding):
    """Private images, and which encodings they belong to.

    Attributes:
        images: (m, C, H, W) float32, normalized as the encodings are.
        target_ids: (m,) int64: the group, or without groups the encoding, of each image.
        absolute: whether ``images`` are absolute values, their signs being unknown.
        dominant: whether ``images`` show, of the encodings that ``target_ids`` names, not the
            encrypted image but the private one with the largest coefficient.
    """

    images: Tensor
    target_ids: Tensor
    absolute: bool = False
    dominant: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class AssignedImages(Finding):
    """Private images, and which of them the attack believes to be in each encoding.

    Attributes:
        images: (m, C, H, W) float32, normalized as the encodings are.
        assignment: (n, j) int64 rows of ``images`` in each encoding, -1 for none.
        coefficients: (n, j) float32, theirs.
        confidence: (m,) how sure the attack is of each image: 1 quite, 0 not at all; None if it
            does not say.
    """

    images: Tensor
    assignment: Tensor
    coefficients: Tensor
    confidence: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class PublicMatches(Finding):
    """Public images in each encoding.

    Attributes:
        rows: (n, j) int64 rows of the public pool, -1 for none.
        coefficients: (n, j) float32, theirs.
        remainder: what is left of the encodings without them; None if the attack does not tell.
    """

    rows: Tensor
    coefficients: Tensor
    remainder: RecoveredImages | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ClassCoefficients(Finding):
    """``coefficients`` (n, classes) float32: total private coefficient of each class."""

    coefficients: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class PredictedMasks(Finding):
    """Masks of the encodings after the known ones.

    Attributes:
        masks: (m, C, H, W) bool: where they turn the sign.
        unmasked: what lies under them.
    """

    masks: Tensor
    unmasked: RecoveredImages


@dataclass(frozen=True, eq=False, repr=False)
class InvertedUpdate(Finding):
    """What a participant trained on, in no order, which an update does not tell.

    Attributes:
        images: (n, C, H, W) float32 encodings, normalized.
        class_coefficients: (n, classes) float32 of each; None if the attacker knew the labels.
    """

    images: Tensor
    class_coefficients: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class MembershipScores(Finding):
    """``scores`` (m,) of each candidate: the more, the likelier the network was trained on it."""

    scores: Tensor


class Budget:
    """Seconds that an attack may take, from the moment that the budget is made.

    Args:
        seconds: of wall time, by default without end.
        clock: that tells the time in seconds. A clock that advances by one whenever it is asked
            makes a budget of steps, whose results do not depend on how busy the machine is:

            >>> from itertools import count
            >>> budget = Budget(2, clock=count().__next__)
            >>> budget.left, budget.left
            (1, 0.0)
    """

    def __init__(
        self, seconds: float = float("inf"), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._clock = clock
        self._began = clock()

    @property
    def left(self) -> float:
        """Seconds that are left, 0 at the end."""
        return max(0.0, self.seconds - (self._clock() - self._began))

    def part(self, seconds: float) -> Budget:
        """A budget of so many ``seconds`` from now, by the same clock."""
        return Budget(seconds, clock=self._clock)


@runtime_checkable
class Attack(Protocol[Seen]):
    """An attack holds settings, never state of a run, and never the truth.

    Attributes:
        name: as it is asked for, such as ``public-search``.
        title: one line for people.
        paper: who published it, and where.
    """

    name: str
    title: str
    paper: str

    @property
    def observes(self) -> type[Seen]:
        """The kind of observation that it attacks; it is given no other."""
        ...

    def applies(self, observation: Seen) -> str | None:
        """Why the attack cannot be run on ``observation``; None if it can."""
        ...

    def run(self, observation: Seen, budget: Budget, progress: Progress) -> Finding:
        """Attack ``observation``; what was found when ``budget`` ends is handed back."""
        ...


def refusal(attack: Attack[Seen], observation: Observation) -> str | None:
    """Why ``attack`` cannot be run on ``observation``, which may be of any kind; None if it can."""
    if not isinstance(observation, attack.observes):
        return attack.observes.absent
    return attack.applies(observation)


def require(value: T | None) -> T:
    """What an attack needs, and asked for in `Attack.applies`."""
    if value is None:
        raise ValueError("an attack was run that does not apply")
    return value


def no_progress(what: str, share: float) -> None:
    """A `Progress` that says nothing."""

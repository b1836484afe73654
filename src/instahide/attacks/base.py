"""The interface of attacks: observations, threat models, budgets and findings.

An attack receives an `Observation` and nothing else, and returns a `Finding`. The ground truth
stays in `instahide.audit`, which scores the finding and which this package does not import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from instahide.attacks.budget import Budget
from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.instahide import scheme_of
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

#: Called with the current step and the finished share of the work, from 0 to 1.
Progress = Callable[[str, float], None]

T = TypeVar("T")
#: What an attack observes.
Seen = TypeVar("Seen", bound="Observation")


@dataclass(frozen=True)
class ThreatModel:
    """What the attacker has besides the encodings and the scheme, which are public.

    Attributes:
        labels: labels of the encodings: "soft" as published, "coarse" for the set of classes in
            each, or "none".
        public: "images" for the public pool itself, "distribution" for similar images, or "none".
        shadow: whether the attacker has images similar to the private ones.
        grouped: whether the attacker knows which encodings encrypt the same private image.
        known_mixes: number of first encodings whose mix before the mask the attacker knows.
        encodings_per_image: encodings of each private image; None if the attacker does not know
            this number, and therefore not the number of private images.
        update: whether it has a network and a participant's update of it instead of encodings.
        known_images: whether the attacker has the private images, but not which encoding is whose.

    Raises:
        InstaHideError: a number is out of range.
    """

    labels: Literal["soft", "coarse", "none"] = "soft"
    public: Literal["images", "distribution", "none"] = "images"
    shadow: bool = False
    grouped: bool = False
    known_mixes: int = 0
    encodings_per_image: int | None = 1
    update: bool = False
    known_images: bool = False

    def __post_init__(self) -> None:
        copies = self.encodings_per_image
        if (copies is not None and copies < 1) or self.known_mixes < 0:
            raise InstaHideError(
                f"{copies} encodings of an image and {self.known_mixes} known mixes cannot be.",
                "Use at least 1 encoding of an image, and 0 or more known mixes.",
            )


@dataclass(frozen=True)
class LocalTraining:
    """How a participant trains before it sends an update; public, because all agree on it.

    Attributes:
        images: number of encodings to train on.
        batch_size: encodings per step; batches cycle through the images in order.
        steps: steps of gradient descent on the soft-label cross-entropy, after which the change of
            the weights is sent; 0 if the gradient of one batch is sent.
        learning_rate: learning rate of the steps.
        train_mode: whether batch norm uses the statistics of the batch (train mode) or the running
            ones (eval mode).

    Raises:
        InstaHideError: a number is out of range.
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
        """(batch_size,) indices of the images in each step, or in the single gradient."""
        for step in range(max(self.steps, 1)):
            yield (torch.arange(self.batch_size) + step * self.batch_size) % self.images


@dataclass(frozen=True, eq=False, repr=False)
class Update:
    """An update that a participant sent.

    Attributes:
        values: gradient of each parameter by name, or its change over the local steps.
        training: the local training.
        buffers: change of each buffer by name, if the participant also sends its batch norm
            statistics; else empty.
    """

    values: Mapping[str, Tensor]
    training: LocalTraining
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Observation:
    """What every attacker knows; the subclasses add what it observes.

    Attributes:
        encoder: the encoder of the encodings, which is public: a `Scheme`, or another one.
        mean: mean of the normalization, per channel.
        std: standard deviation of the normalization, per channel.
        threat: what else the attacker has.
    """

    encoder: InstanceEncoder
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threat: ThreatModel

    #: Why an attack does not apply if there is no such observation.
    absent: ClassVar[str] = "There is nothing that it could be run on."

    @property
    def scheme(self) -> Scheme:
        """The scheme of the encodings; a `SchemeError` for another encoder."""
        return scheme_of(self.encoder)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.encoder}, {self.threat})"


@dataclass(frozen=True, eq=False, repr=False)
class EncodingObservation(Observation):
    """n encodings, and what else the threat model grants; None for what it does not grant.

    Attributes:
        encodings: (n, C, H, W) float32.
        labels: (n, classes) float32: soft labels, or 1 for each class in the mix.
        public: the public pool, or similar images, according to ``threat.public``.
        shadow: images similar to the private ones, none of them private.
        groups: (n,) int64 without further meaning, equal for encodings of one private image.
        known_mixes: (m, C, H, W) float32, the mixes of the first m encodings before the mask.
        augmentation: crop and flip of every image of a mix, which the scheme's users agree on.
        known_images: (N, C, H, W) float32, the private images in random order, normalized.
    """

    encodings: Tensor
    labels: Tensor | None = None
    public: ImageTable | None = None
    shadow: ImageTable | None = None
    groups: Tensor | None = None
    known_mixes: Tensor | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    known_images: Tensor | None = None

    absent: ClassVar[str] = "The attacker sees no encodings."

    def __len__(self) -> int:
        return len(self.encodings)

    def owners(self, first: int = 0) -> Tensor:
        """(n - first,) target IDs of the encodings from ``first`` on; see `RecoveredImages`."""
        return torch.arange(first, len(self)) if self.groups is None else self.groups[first:]

    def __repr__(self) -> str:
        return f"EncodingObservation({len(self)} encodings of {self.encoder}, {self.threat})"


@dataclass(frozen=True, eq=False, repr=False)
class UpdateObservation(Observation):
    """A network and a participant's update of it, as a federation's server sees them.

    Attributes:
        shape: (C, H, W) of an encoding.
        network: the network before the update.
        update: the participant's update.
        labels: (n, classes) float32 labels of the encodings behind the update, in order; None if
            the threat model does not grant them.
    """

    shape: tuple[int, ...]
    network: nn.Module
    update: Update
    labels: Tensor | None = None

    absent: ClassVar[str] = "The attacker sees no update of a network."


@dataclass(frozen=True, eq=False, repr=False)
class NetworkObservation(Observation):
    """A trained network, and candidate images that it may have been trained on.

    Attributes:
        network: network trained on encodings.
        candidates: candidate images with their labels.
        public: the public pool, if the threat model grants it.
    """

    network: nn.Module
    candidates: ImageTable
    public: ImageTable | None = None

    absent: ClassVar[str] = "The attacker has no trained network, or no images to ask it about."


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Finding:
    """The finding of an attack; the subclasses add results that can be scored.

    Attributes:
        statistics: numbers that the attack computes without the ground truth.
    """

    statistics: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.statistics)})"


@dataclass(frozen=True, eq=False, repr=False)
class RecoveredImages(Finding):
    """Recovered private images, and the encodings to which they belong.

    Attributes:
        images: (m, C, H, W) float32, normalized as the encodings are.
        target_ids: (m,) int64 group of each image, or its encoding if there are no groups.
        absolute: whether ``images`` are absolute values, because signs are unknown.
        dominant: whether ``images`` show the private image with the largest coefficient in the
            encodings ``target_ids``, instead of the encrypted image.
    """

    images: Tensor
    target_ids: Tensor
    absolute: bool = False
    dominant: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class AssignedImages(Finding):
    """Recovered private images, and their assignment to encodings.

    Attributes:
        images: (m, C, H, W) float32, normalized as the encodings are.
        assignment: (n, j) int64 rows of ``images`` in each encoding, -1 for none.
        coefficients: (n, j) float32 coefficients of these images.
        confidence: (m,) confidence in each image from 0 to 1; None if unknown.
    """

    images: Tensor
    assignment: Tensor
    coefficients: Tensor
    confidence: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class PublicMatches(Finding):
    """Public images found in each encoding.

    Attributes:
        rows: (n, j) int64 rows of the public pool, -1 for none.
        coefficients: (n, j) float32 coefficients of these images.
        remainder: the encodings without these images; None if not computed.
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
    """Predicted masks of the encodings after the known ones.

    Attributes:
        masks: (m, C, H, W) bool, whether the sign is flipped.
        unmasked: the images without these masks.
    """

    masks: Tensor
    unmasked: RecoveredImages


@dataclass(frozen=True, eq=False, repr=False)
class InvertedUpdate(Finding):
    """Recovered encodings behind an update, in arbitrary order, which an update does not determine.

    Attributes:
        images: (n, C, H, W) float32 encodings, normalized.
        class_coefficients: (n, classes) float32 recovered labels; None if the attacker knew the
            labels, or did not recover them.
    """

    images: Tensor
    class_coefficients: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class MembershipScores(Finding):
    """``scores`` (m,) of the candidates: higher if the network was more likely trained on one."""

    scores: Tensor


@runtime_checkable
class Attack(Protocol[Seen]):
    """The interface of an attack. It holds settings, but no state of a run and no ground truth.

    Attributes:
        name: name by which it is selected, such as ``public-search``.
        title: a description in one line.
        paper: its publication.

    It is run on volumes, on encodings of moved images and on those of other encoders than
    InstaHide only if its attribute ``volumes``, ``augmented`` or ``any_encoder`` is true.
    """

    name: str
    title: str
    paper: str

    @property
    def observes(self) -> type[Seen]:
        """The type of observation that it attacks."""
        ...

    def applies(self, observation: Seen) -> str | None:
        """Why the attack cannot be run on ``observation``; None if it can."""
        ...

    def run(self, observation: Seen, budget: Budget, progress: Progress) -> Finding:
        """Attack ``observation``, and return what was found when ``budget`` ends.

        An attack that does less than it wanted, for want of time, asks `Budget.over` before what it
        leaves out, or calls `Budget.cut`: it is then reported as out of time.
        """
        ...


def require(value: T | None) -> T:
    """``value``, which `Attack.applies` has checked not to be None."""
    if value is None:
        raise ValueError("an attack was run that does not apply")
    return value


def no_progress(what: str, share: float) -> None:
    """A `Progress` that does nothing."""

"""What an attacker sees, how long it may take, and what it hands back.

An attack gets an `Observation` and nothing else. The truth stays with whoever scores it, in
`instahide.audit`, which this room does not know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

#: Called with what is being done and the share of it that is done, from 0 to 1.
Progress = Callable[[str, float], None]

T = TypeVar("T")


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
    """All that an attacker holds: n encodings, and what its threat model grants.

    Attributes:
        encodings: (n, C, H, W) float32; none, (0, C, H, W), where ``update`` is seen instead.
        labels: (n, classes) float32: soft, or 1 for each class that is there; None without labels.
            With an ``update``, of the encodings that it was made with, in their order.
        scheme: how they were made.
        mean: of the normalization, one a channel.
        std: of the normalization, one a channel.
        threat: what is granted.
        public: the public pool, or other images of its kind, as ``threat.public`` says.
        shadow: images of the private images' kind, none of them private.
        groups: (n,) int64; encodings of one number began with the same private image. The number
            itself means nothing.
        known_mixes: (m, C, H, W) float32, the mixes of the first m encodings before the mask.
        network: a model that the attacker knows; with an ``update``, as it was before.
        update: what a participant sent of training ``network``.
        candidates: images with their labels, of which the attacker asks whether ``network``, as it
            is now, was trained on encodings of them.
    """

    encodings: Tensor
    labels: Tensor | None
    scheme: Scheme
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threat: ThreatModel
    public: ImageTable | None = None
    shadow: ImageTable | None = None
    groups: Tensor | None = None
    known_mixes: Tensor | None = None
    network: nn.Module | None = None
    update: Update | None = None
    candidates: ImageTable | None = None

    def __len__(self) -> int:
        return len(self.encodings)

    def owners(self, first: int = 0) -> Tensor:
        """(n - first,) what the encodings from ``first`` on are of, as `Reconstruction.of` says."""
        return torch.arange(first, len(self)) if self.groups is None else self.groups[first:]

    def __repr__(self) -> str:
        return f"Observation({len(self)} encodings of {self.scheme}, {self.threat})"


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """What an attack found out; whatever it did not look for is None.

    Attributes:
        statistics: plain numbers that the attack knows by itself, without the truth.
        images: (m, C, H, W) float32, normalized as the encodings are.
        of: (m,) int64: the group, or without groups the encoding, that each image belongs to; None
            where images come from an update, which tells no order.
        absolute: whether ``images`` are absolute values, their signs being unknown.
        dominant: whether ``images`` show, of the encodings that ``of`` names, not the encrypted
            image but the private one with the largest coefficient.
        public_rows: (n, j) int64 rows of the public pool found in each encoding, -1 for none.
        public_coefficients: (n, j) float32, theirs.
        class_coefficients: (n, classes) float32, total private coefficient of each class.
        masks: (m, C, H, W) bool: where the attack says that the masks of the encodings after the
            known ones turn the sign.
        members: (n, j) int64, which of ``images`` the attack believes to be in each encoding, -1
            for none.
        coefficients: (n, j) float32, theirs.
        confidence: (m,) how sure the attack is of each image: 1 quite, 0 not at all.
        membership: (m,) of each candidate, the more the likelier the network was trained on it.
    """

    statistics: Mapping[str, float] = field(default_factory=dict)
    images: Tensor | None = None
    target_ids: Tensor | None = None
    absolute: bool = False
    dominant: bool = False
    public_rows: Tensor | None = None
    public_coefficients: Tensor | None = None
    class_coefficients: Tensor | None = None
    masks: Tensor | None = None
    assignment: Tensor | None = None
    coefficients: Tensor | None = None
    confidence: Tensor | None = None
    membership: Tensor | None = None

    def __repr__(self) -> str:
        return f"Reconstruction({dict(self.statistics)})"


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
class Attack(Protocol):
    """An attack holds settings, never state of a run, and never the truth.

    Attributes:
        name: as it is asked for, such as ``public-search``.
        title: one line for people.
        paper: who published it, and where.
    """

    name: str
    title: str
    paper: str

    def applies(self, observation: Observation) -> str | None:
        """Why the attack cannot be run on ``observation``; None if it can."""
        ...

    def run(self, observation: Observation, budget: Budget, progress: Progress) -> Reconstruction:
        """Attack ``observation``; what was found when ``budget`` ends is handed back."""
        ...


def require(value: T | None) -> T:
    """What an attack needs, and asked for in `Attack.applies`."""
    if value is None:
        raise ValueError("an attack was run that does not apply")
    return value


def no_progress(what: str, share: float) -> None:
    """A `Progress` that says nothing."""

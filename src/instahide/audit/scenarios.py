"""The observations that an audit gives to attackers, each with its separate ground truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from instahide.attacks.any_encoder.observation import PairObservation
from instahide.attacks.base import (
    EncodingObservation,
    Finding,
    LocalTraining,
    NetworkObservation,
    Observation,
    ThreatModel,
)
from instahide.attacks.gradients.lenet import lenet
from instahide.attacks.gradients.perceptron import perceptron
from instahide.attacks.weak_rng.mt19937 import ENOUGH
from instahide.audit.client_update import observe_update
from instahide.audit.federation import observe_federation
from instahide.audit.ground_truth import GroundTruth, group_numbers, observe, observe_pairs
from instahide.audit.schedule import FEDERATIONS, SENT, Task
from instahide.audit.scoring.ceiling import ceiling_of
from instahide.audit.scoring.matching import Matches, match_to_nearest
from instahide.audit.scoring.membership import with_candidates
from instahide.audit.scoring.scores import score
from instahide.audit.target import AuditTarget
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

#: Largest number of members, and of other images, on which a trained network is queried.
MOST_CANDIDATES = 200
#: Approximate number of pairs in the distinguishing game.
PAIR_TRIALS = 200
#: Largest number of values in the encodings of which a ceiling is computed, because of its memory.
MOST_VALUES = 1 << 27
#: A participant's images in an audit of all of its updates; encodings of each update and of each
#: local step; learning rate; and units of the network's first layer. Updates stay at 1.5 MB.
PARTICIPANT_IMAGES, FEDSGD, FEDAVG, UNITS = (
    20,
    LocalTraining(images=10, batch_size=10, learning_rate=0.1),
    LocalTraining(images=20, batch_size=5, steps=4, learning_rate=0.1),
    128,
)
#: Ratio of the signs in known mixes to those needed, because signs of small values are uncertain.
_SPARE = 1.25


@dataclass(frozen=True, eq=False, repr=False)
class Scenario:
    """An observation and the ground truth by which attacks on it are scored.

    Attributes:
        observation: everything that the attacker receives.
        images: number of private images behind it.
        grants: descriptions of what the attacker has besides encodings and scheme.
        truth: SECRET, the ground truth; None for published encodings, whose keys are unknown.
        subject: the audit's target.
    """

    observation: Observation
    images: int
    grants: list[str]
    truth: GroundTruth | None
    subject: AuditTarget

    def score(self, found: Finding) -> tuple[dict[str, float], Matches | None]:
        """Figures of an attack's findings, and the recovered images matched to their originals."""
        figures = dict(found.statistics)
        if self.truth is not None:
            scored = score(found, self.observation, self.truth)
            figures |= scored.summary
            if scored.matches is not None:
                figures["images_sought"] = float(self.images)
                if scored.matches.groups is not None:
                    sought = min(scored.matches.groups.total, self.images)
                    figures["groups_sought"] = float(sought)
            return figures, scored.matches
        images = self.subject.images
        matches = match_to_nearest(
            found,
            torch.from_numpy(images.normalized()),
            self.subject.pixels(),
            group_numbers(images),
            (self.observation.mean, self.observation.std),
        )
        return figures | ({} if matches is None else matches.summary()), matches

    def ceiling(self, found: Matches | None) -> Matches | None:
        """The ceiling of a reconstruction that ``found`` these images; None if it is unknown."""
        seen = self.observation
        if self.truth is None or not isinstance(seen, EncodingObservation):
            return None
        if not self.subject.is_scheme or seen.encodings.numel() > MOST_VALUES:
            return None
        return ceiling_of(seen, self.truth, found)


def scenarios(subject: AuditTarget, task: Task) -> Iterator[Scenario]:
    """Observations for ``task``, from the weakest threat model to the strongest.

    An audit uses the first one to which the attack applies.
    """
    if task.on == "published":
        published = subject.observation_of_published()
        if published is not None:
            yield Scenario(published, len(subject.images), _granted(published), None, subject)
        return
    if task.on in SENT:
        yield from _with_update(subject, Scheme.plain() if task.on == "plain update" else None)
        return
    if task.on in FEDERATIONS:
        yield _with_rounds(subject, task)
        return
    images, _ = subject.known_key_target()
    for threat in _threats(subject, len(images), task.copies):
        observation, truth = observe(
            images, subject.public, subject.encoder, threat, shadow=subject.others
        )
        yield Scenario(observation, len(images), _granted(observation), truth, subject)
    if len(images) > 1:
        yield _with_pairs(subject, images)
    if subject.is_scheme and subject.network is not None and subject.others is not None:
        yield _with_network(subject, task.copies, subject.network, subject.others)


def _with_pairs(subject: AuditTarget, images: ImageTable) -> Scenario:
    """Pairs of private images, one of each encoded."""
    least = next(_threats(subject, len(images), copies=1))
    rounds = max(1, PAIR_TRIALS // max(1, len(images) // 2))
    observation, truth = observe_pairs(
        images, subject.public, subject.encoder, least, shadow=subject.others, rounds=rounds
    )
    grants = [*_granted(observation), "both images of each pair, of which one was encoded"]
    return Scenario(observation, len(images), grants, truth, subject)


def _with_network(
    subject: AuditTarget, copies: int, network: nn.Module, others: ImageTable
) -> Scenario:
    """The trained network, and equally many training images and other images to query it on."""
    count = min(MOST_CANDIDATES, len(subject.images), len(others))
    members, strangers = _share(subject.images, count), _share(others, count)
    least = next(_threats(subject, count, copies))
    seen = observe(members, subject.public, subject.scheme, replace(least, shadow=False))
    observation, truth = with_candidates(seen, network, members, strangers)
    return Scenario(observation, count, _granted(observation), truth, subject)


def _with_update(subject: AuditTarget, scheme: Scheme | None) -> Iterator[Scenario]:
    """The gradient of one encoding, under ``scheme`` if given, else under the target's scheme.

    First of an untrained network, on which attacks work best; then of the network that a run has
    trained, for attacks that use its batch norm statistics.
    """
    scheme = scheme or subject.scheme
    untrained = lenet(subject.images.shape, len(subject.images.classes), seed=0)
    what = "image" if scheme == Scheme.plain() else "encoding"
    for kind, network in {"an untrained": untrained, "the trained": subject.network}.items():
        if network is None:
            continue
        observation, truth = observe_update(
            subject.known_key_target()[0], subject.public, scheme, network, np.zeros(1, np.int64),
            LocalTraining(), labels="none",
        )  # fmt: skip
        grants = [f"{kind} network and its gradient on one {what}"]
        yield Scenario(observation, 1, grants, truth, subject)


def _with_rounds(subject: AuditTarget, task: Task) -> Scenario:
    """All updates of a participant that trains a network with a dense first layer."""
    images = subject.known_key_target()[0]
    images = _share(images, min(PARTICIPANT_IMAGES, len(images)))
    training = _fitting(FEDSGD if task.on == "fedsgd" else FEDAVG, len(images))
    network = perceptron(images.shape, len(images.classes), units=UNITS, seed=0)
    observation, truth = observe_federation(
        images, subject.public, subject.scheme, network, training, epochs=task.copies
    )
    what = "gradients of batches" if task.on == "fedsgd" else "changes of the weights"
    grants = [
        "the network before each update (one with a dense first layer)",
        f"{len(observation.updates)} updates ({what}), each on {training.images} encodings",
    ]
    return Scenario(observation, len(images), grants, truth, subject)


def _fitting(training: LocalTraining, images: int) -> LocalTraining:
    """The ``training``, on no more encodings for an update than there are ``images``."""
    count = min(training.images, images)
    return replace(training, images=count, batch_size=min(training.batch_size, count))


def _share(images: ImageTable, count: int) -> ImageTable:
    """``count`` evenly spaced ``images``."""
    return images.subset(np.linspace(0, len(images) - 1, count).astype(np.int64))


def _threats(subject: AuditTarget, images: int, copies: int) -> Iterator[ThreatModel]:
    least = ThreatModel(
        public="none" if subject.public is None else "images",
        shadow=subject.others is not None,
        encodings_per_image=copies,
    )
    yield least
    yield replace(least, grouped=True)
    yield replace(least, known_images=True)
    known = math.ceil(_SPARE * ENOUGH / math.prod(subject.images.shape))
    # At least half of the masks remain to be predicted.
    if known <= images * copies // 2:
        yield replace(least, known_mixes=known)


def _granted(
    observation: EncodingObservation | NetworkObservation | PairObservation,
) -> list[str]:
    if isinstance(observation, NetworkObservation):
        public = ["the public pool"] if observation.public is not None else []
        return [*public, "the trained network, and images to ask it about"]
    threat = observation.threat
    words = {
        "soft labels": observation.labels is not None,
        "the public pool": observation.public is not None,
        "other images of the private ones' kind": threat.shadow,
        "which encodings are of one image": threat.grouped,
        "the private images, but not which encodings are of which": threat.known_images,
        f"the mixes of {threat.known_mixes} encodings": threat.known_mixes > 0,
    }
    return [name for name, given in words.items() if given]

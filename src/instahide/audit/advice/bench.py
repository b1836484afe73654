"""Measures a candidate: trains a small network on its encodings, and attacks as many of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from instahide.attacks.base import Attack, Observation
from instahide.attacks.sandbox import IsolatedRunner
from instahide.audit.advice.encoder_candidate import AnyCandidate
from instahide.audit.advice.front import Point
from instahide.audit.advice.schema import Measurement, State
from instahide.audit.label_classes import findings_as_classes
from instahide.audit.report.schema import AttackResult
from instahide.audit.report.thresholds import recovered_share, summary
from instahide.audit.scenarios import scenarios
from instahide.audit.schedule import Task
from instahide.audit.session import LEAST_SECONDS, Session
from instahide.audit.target import MOST_IMAGES, AuditTarget
from instahide.data import ImageTable, Split
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.table_encoder import open_encoder
from instahide.encryption.scheme import Scheme, label_mode_for
from instahide.training.data.encoded_loader import EncodedLoader
from instahide.training.data.kept_encodings import KeptEncodings
from instahide.training.data.private import test_inputs
from instahide.training.evaluate import predicted
from instahide.training.history import watched
from instahide.training.losses import Loss
from instahide.training.metrics import headline
from instahide.training.models import build
from instahide.training.outputs import Outputs
from instahide.training.progress import Progress
from instahide.training.settings import TrainSettings
from instahide.training.training_loop import one_epoch
from instahide.training.training_state import TrainingState

#: Attacks of each candidate. The first two take less than a second; the last one needs as long as
#: it is given, for any number of encodings, and recovers most under noise.
QUICK, LEARNED = ("averaging", "averaging-absolute", "reconstruction"), "demixing"
#: The attack on encoders that are no scheme, also by a network. It takes single encodings.
LEARNED_ANY = "inversion"
#: Steps of that network: those that are aimed at, and without which its result counts as missing,
#: so that a busy machine does not make a setting look safe. A thorough attack takes all steps.
AIMED_STEPS, LEAST_STEPS = 200, 100
THOROUGH_STEPS, LEAST_THOROUGH = 2000, 1000
#: Times that the attack by a network is tried, if it had too few steps.
TRIES = 2
#: Seconds of its first run, which is discarded: code is compiled in it, so that its steps are slow.
WARM_UP = 2 * LEAST_SECONDS
#: Seconds for the quick attacks, of which `reconstruction` on 100 images with 20 encodings each
#: takes 40 on one core. One that needs more counts as missing.
QUICK_SECONDS = 600.0
#: Share of the epochs after which a network is compared with others.
EARLY = 1 / 3
#: Points of accuracy by which another setting must be better after `EARLY` and at the end, so that
#: a setting is not dropped by chance.
EARLY_MARGIN, MARGIN = 10.0, 1.0


class Job(NamedTuple):
    """A measurement to make.

    Attributes:
        candidate: the setting; None is plain training.
        seed: seed of the first weights and of the choice of attacked images.
        thorough: whether the attack by a network gets as much time as is useful.
    """

    candidate: AnyCandidate | None
    seed: int
    thorough: bool = False

    @property
    def name(self) -> str:
        """A name that is valid as a file name."""
        of = "plain" if self.candidate is None else self.candidate.name
        return f"{of}-seed{self.seed}{'-thorough' if self.thorough else ''}"


class Shows(Protocol):
    """Is told of the progress of a measurement."""

    def step(self, what: str) -> None:
        """The step ``what`` of the current measurement begins."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Bench:
    """The images and the small network that all candidates are measured with.

    Attributes:
        source: the images, as the user named them.
        split: private training images, and plain test images.
        public: the public pool; None if no candidate needs one.
        settings: the training of the small network.
        folder: keeps the results of the attacks; it has no image, key or partner in it.
        attacks: the registered attacks by name.
        attack_seconds: seconds of the attack by a network; more if it was too slow before.
        thorough_seconds: its seconds in a thorough measurement, likewise.
    """

    source: str
    split: Split
    public: ImageTable | None
    settings: TrainSettings
    folder: Path
    attacks: dict[str, Attack[Observation]]
    attack_seconds: float
    thorough_seconds: float
    _pace: dict[str, float] = field(default_factory=dict)

    @cached_property
    def attacked_images(self) -> int:
        """The number of images in each attack, if there are no groups."""
        return min(MOST_IMAGES, len(self.split.train))

    @property
    def steps(self) -> int:
        """The steps of each training."""
        per_epoch = -(-len(self.split.train) // self.settings.batch_size)
        return per_epoch * self.settings.epochs

    def measure(
        self,
        job: Job,
        rivals: Sequence[Measurement],
        attacker: IsolatedRunner,
        shows: Shows,
    ) -> Measurement:
        """Train on a candidate's encodings and attack it, unless a rival is better in both.

        The ceiling comes first. It is a lower bound of the exposure and costs little: so a network
        that learns clearly less than that of a rival with a lower exposure need not be trained to
        the end, and its encodings need not be attacked.

        Args:
            job: what to measure.
            rivals: measurements to compare with; with none, it is measured to the end.
            attacker: runs the attacks.
            shows: is told of the progress.
        """
        began, candidate = time.monotonic(), job.candidate
        if candidate is None:
            return self._reference(job.seed)
        subject = self.subject(candidate, job.seed)
        shows.step("ceiling")
        bound = _ceiling(subject) if subject.is_scheme else None
        less_exposed = [rival for rival in rivals if rival.exposure <= (bound or 0.0)]
        state, scores = self._trained(candidate, job.seed, less_exposed, shows)
        results: list[AttackResult] = []
        if state == "done":
            results = self._attacked(job, subject, attacker, shows)
        found = summary(results)
        complete = len(scores) > self._early_epochs
        return Measurement(
            candidate=candidate,
            seed=job.seed,
            thorough=job.thorough,
            state=state,
            early=scores[0] if self._early_epochs else None,
            accuracy=scores[-1] if complete else None,
            ceiling=None if bound is None else max(bound, found["ceiling"] or 0.0),
            recovered=found["recovered"],
            attacks={result.attack: recovered_share(result) for result in results},
            missing=_missing(results, attacks_on(subject), job.thorough) if state == "done" else [],
            seconds=time.monotonic() - began,
        )

    def subject(self, candidate: AnyCandidate, seed: int) -> AuditTarget:
        """The candidate as the target of an audit. Other seeds attack other images."""
        images, others = findings_as_classes(*self.split)
        order = np.random.default_rng(seed).permutation(len(images))
        method = candidate.encryption(self.split.train.task)
        return AuditTarget(
            name=candidate.name,
            kind="encodings",
            source=self.source,
            images=images.subset(order),
            public=self.public if method.uses_public else None,
            encoder=method,
            copies=candidate.copies,
            others=others,
        )

    @property
    def _early_epochs(self) -> int:
        """1 if networks are compared before the end, else 0."""
        return int(self.settings.epochs > 1)

    def _reference(self, seed: int) -> Measurement:
        """Plain training."""
        began = time.monotonic()
        labels = label_mode_for(self.split.train.task)
        *early, last = self._learned(Scheme.plain(label_mode=labels), 1, seed)
        return Measurement(
            candidate=None,
            seed=seed,
            early=early[0] if early else None,
            accuracy=last,
            seconds=time.monotonic() - began,
        )

    def _trained(
        self, candidate: AnyCandidate, seed: int, rivals: Sequence[Measurement], shows: Shows
    ) -> tuple[State, list[float]]:
        """The accuracies so far, and whether a rival is clearly more accurate."""
        shows.step("training")
        method = candidate.encryption(self.split.train.task)
        scores: list[float] = []
        for score in self._learned(method, candidate.copies, seed):
            scores.append(score)
            early = len(scores) <= self._early_epochs
            margin = (EARLY_MARGIN if early else MARGIN) / 100
            others = (rival.early if early else rival.accuracy for rival in rivals)
            if any(other is not None and other >= score + margin for other in others):
                return ("stopped" if early else "not attacked"), scores
        return "done", scores

    def _learned(self, method: InstanceEncoder, copies: int, seed: int) -> Iterator[float]:
        """Train on ``copies`` encodings of each image; yields the accuracies early and at the end.

        The encodings stay in memory and are counted nowhere, because nobody gets them.
        """
        images, settings = self.split.train, self.settings.merged({"seed": seed})
        encoder = open_encoder(method, images, self.public if method.uses_public else None)
        batches = KeptEncodings(EncodedLoader(encoder, settings.batch_size), copies)
        outputs = Outputs(images.task, len(images.classes))
        shape = method.output_shape(images.shape)
        network = build(
            settings.model, shape[0], len(images.classes), sign_invariant=is_masked(method),
            seed=seed, size=shape[1:],
        )  # fmt: skip
        state = TrainingState.start(network, settings, loss=Loss(outputs))
        early = max(1, round(EARLY * settings.epochs))
        for epoch in range(1, settings.epochs + 1):
            state.history.append(one_epoch(state, batches, settings, Progress()))
            if epoch in (early, settings.epochs):
                inputs = test_inputs(encoder, self.split.test)
                found = predicted(state.network, inputs, outputs)
                yield watched(headline(images.task, *found))

    def _attacked(
        self, job: Job, subject: AuditTarget, attacker: IsolatedRunner, shows: Shows
    ) -> list[AttackResult]:
        """The attacks of an audit, with as many encodings of each image as are published."""
        _, copies = subject.known_key_target()
        session = Session.open(self.folder / job.name, subject, pictures=False)
        names = attacks_on(subject)
        *quick, learned = (Task(name, copies) for name in names)

        def run(tasks: Sequence[Task], seconds: float) -> list[AttackResult]:
            for _ in session.run(tasks, self.attacks, seconds, _Watcher(shows), attacker):
                pass
            return list(session.done(tasks).values())

        results, found = run(quick, QUICK_SECONDS) if quick else [], list[AttackResult]()
        if learned.attack not in self._pace and learned not in session.done([learned]):
            run([learned], WARM_UP)
            session.discard(learned)
        for _ in range(TRIES):
            found = run([learned], self._network_seconds(learned.attack, job.thorough))
            for one in found:
                if one.state == "done":
                    self._pace[one.attack] = one.seconds / max(_steps(one) or 0.0, 1.0)
            if learned.attack not in _missing(found, names, job.thorough):
                break
            # On a busy machine it had too few steps; now the pace is known.
            session.discard(learned)
        return [*results, *found]

    def _network_seconds(self, attack: str, thorough: bool) -> float:
        """Seconds for an attack by a network, enough for the steps that are aimed at."""
        seconds = self.thorough_seconds if thorough else self.attack_seconds
        pace = self._pace.get(attack, 0.0)
        return max(seconds, pace * (THOROUGH_STEPS if thorough else AIMED_STEPS))


class _Watcher:
    """Passes the name of an attack on."""

    def __init__(self, shows: Shows) -> None:
        self._shows = shows

    def begins(self, number: int, task: Task, seconds: float) -> None:
        self._shows.step(f"attack {task.attack}")

    def goes_on(self, what: str, share: float) -> None:
        pass


def point_of(measurement: Measurement, reference: float) -> Point:
    """Exposure and drop of one measurement."""
    score = measurement.accuracy if measurement.accuracy is not None else measurement.early
    return Point(measurement.exposure, 100 * (reference - (score or 0.0)))


def _ceiling(subject: AuditTarget) -> float | None:
    """The share of images that recovery reaches from a start at the truth.

    None if it is not computed, because the encodings have more than `scenarios.MOST_VALUES` values.
    """
    _, copies = subject.known_key_target()
    scene = next(scenarios(subject, Task("reconstruction", copies)))
    found = scene.ceiling(None)
    return None if found is None else found.recognizable / found.total


def _steps(result: AttackResult) -> float | None:
    """The steps of the training of an attack by a network; None if it trained none."""
    return result.figures.get("steps") if result.attack in (LEARNED, LEARNED_ANY) else None


def attacks_on(subject: AuditTarget) -> tuple[str, ...]:
    """Names of the attacks that decide, the attack by a network last."""
    return (*QUICK, LEARNED) if subject.is_scheme else (LEARNED_ANY,)


def is_masked(method: InstanceEncoder) -> bool:
    """Whether the network is given absolute values: a scheme masks signs."""
    return isinstance(method, Scheme) and method.mask


def _missing(results: Sequence[AttackResult], names: Sequence[str], thorough: bool) -> list[str]:
    """Those of the attacks ``names`` that did not run, failed, or did not end for want of time.

    The attack by a network has a result whenever its time ends, but it needs some steps, whatever
    is said of its time. All that it wants are more than these.
    """
    least = LEAST_THOROUGH if thorough else LEAST_STEPS

    def ended(result: AttackResult) -> bool:
        steps = _steps(result)
        enough = not result.out_of_time if steps is None else steps >= least
        return result.state != "failed" and enough

    known = {result.attack for result in results if ended(result)}
    return [name for name in names if name not in known]

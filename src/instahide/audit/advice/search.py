"""The search: which candidate is measured next, within a time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

from instahide.attacks.sandbox import IsolatedRunner
from instahide.audit.advice.bench import Bench, Job, Shows, point_of
from instahide.audit.advice.candidate import Candidate
from instahide.audit.advice.decision import meeting, share_of_targets
from instahide.audit.advice.encoder_candidate import AnyCandidate, never_recommended
from instahide.audit.advice.front import Point, pareto_front
from instahide.audit.advice.journal import Journal
from instahide.audit.advice.proposals import Proposals
from instahide.audit.advice.schema import Measurement, Setting, Targets
from instahide.utils.folder_lock import only_process

#: Shares of the budget after which new candidates and repetitions end. The last part is for a
#: thorough attack on what meets the targets. Time that a part does not need goes to the others.
EXPLORE, REPEAT = 0.75, 0.85
#: Measurements of each setting on the front, each with another seed: first, and if there is time.
SEEDS, MOST_SEEDS = 2, 3


class Watcher(Shows, Protocol):
    """Is told of the progress of a search."""

    def begins(self, job: Job, share: float) -> None:
        """A measurement begins after this share of the budget."""
        ...

    def ended(self, measurement: Measurement) -> None:
        """A measurement was written."""
        ...


@dataclass(eq=False)
class Search:
    """A search for the best trade-offs of accuracy and privacy.

    Attributes:
        bench: measures candidates.
        journal: keeps the measurements.
        proposals: proposes candidates.
        targets: what the user asks for; settings that meet both are repeated first.
        budget: seconds for all measurements, those of earlier runs included.
        clock: the time in seconds.
    """

    bench: Bench
    journal: Journal
    proposals: Proposals
    targets: Targets
    budget: float
    clock: Callable[[], float] = time.monotonic
    _epsilons: dict[AnyCandidate, float | None] = field(default_factory=dict)

    def run(self, watcher: Watcher) -> None:
        """Measure until the budget is used up; the last measurement may exceed it.

        A search that was killed continues with the next measurement.

        Raises:
            InstaHideError: another process searches in this folder.
        """
        with only_process(self.journal.folder), IsolatedRunner() as attacker:
            # A search that has just ended may have added some since this journal was opened.
            self.journal.read()
            began, earlier = self.clock(), self.journal.seconds
            while job := self._next(earlier + self.clock() - began):
                spent = earlier + self.clock() - began
                watcher.begins(job, min(1.0, spent / self.budget))
                # A setting on the front is measured to the end again.
                rivals = self._rivals() if job.seed == 0 else []
                measurement = self.bench.measure(job, rivals, attacker, watcher)
                self.journal.add(measurement)
                watcher.ended(measurement)

    def settings(self) -> list[Setting]:
        """All settings with a measurement: the front first, then those measured to the end."""
        if not self.journal.reference:
            return []
        reference = fmean(self.journal.reference.values())
        task = self.bench.split.train.task
        found = [
            Setting.of(
                measured, reference, candidate.settings(),
                self._epsilon(candidate), never_recommended(candidate, task),
            )
            for candidate, measured in self.journal.by_candidate().items()
        ]  # fmt: skip
        # Without a result of an attack, the exposure is not known; without a ceiling, it cannot be
        # compared with that of a setting that has one.
        done = [s for s in found if s.state == "done" and not s.missing and not s.never_recommended]
        front = {
            id(setting)
            for known in (True, False)
            for setting in _front([s for s in done if (s.ceiling is not None) == known])
        }
        marked = [s.model_copy(update={"on_front": id(s) in front}) for s in found]
        order = {"done": 0, "not attacked": 1, "stopped": 2}
        return sorted(marked, key=lambda s: (not s.on_front, order[s.state], s.point))

    def _next(self, spent: float) -> Job | None:
        """The next measurement; None if there is nothing left, or no time."""
        if 0 not in self.journal.reference:
            return Job(None, 0)
        if spent >= self.budget:
            return None
        kinds = [self._new, self._checked, self._repeated, self._repeated_again]
        if EXPLORE * self.budget <= spent < REPEAT * self.budget:
            kinds = [self._repeated, self._checked, self._repeated_again, self._new]
        elif spent >= REPEAT * self.budget:
            kinds = [self._checked, self._repeated, self._repeated_again, self._new]
        job = next(filter(None, (kind() for kind in kinds)), None)
        if job is None or job.seed in self.journal.reference:
            return job
        return Job(None, job.seed)

    def _new(self) -> Job | None:
        """A candidate that was not tried."""
        reference = fmean(self.journal.reference.values())
        tried = {
            candidate: _mean_point([point_of(m, reference) for m in measured])
            for candidate, measured in self.journal.by_candidate().items()
        }
        candidate = self.proposals.propose(tried)
        return None if candidate is None else Job(candidate, 0)

    def _repeated(self, most: int = SEEDS) -> Job | None:
        """The setting on the front with the fewest seeds; of these, the nearest to the targets."""
        few = [s for s in self.settings() if s.on_front and s.seeds < most]
        if not few:
            return None
        chosen = min(few, key=lambda s: (s.seeds, share_of_targets(s, self.targets), s.point))
        return Job(chosen.candidate, self._seed(chosen))

    def _repeated_again(self) -> Job | None:
        return self._repeated(MOST_SEEDS)

    def _checked(self) -> Job | None:
        """A thorough attack on the setting that would be recommended; None after it had one."""
        good = meeting(self.settings(), self.targets)
        if not good or good[0].thorough:
            return None
        return Job(good[0].candidate, self._seed(good[0]), thorough=True)

    def _seed(self, setting: Setting) -> int:
        """The seed of the next measurement of a setting: larger than all that it had."""
        return 1 + max(m.seed for m in self.journal.by_candidate()[setting.candidate])

    def _rivals(self) -> Sequence[Measurement]:
        return [
            m
            for m in self.journal.measurements
            if m.candidate is not None
            and m.state == "done"
            and not m.missing
            # An exposure that has no ceiling may be larger than the attacks have found.
            and m.ceiling is not None
        ]

    def _epsilon(self, candidate: AnyCandidate) -> float | None:
        if isinstance(candidate, Candidate) and not candidate.noise:
            return None
        if candidate not in self._epsilons:
            found = self.bench.subject(candidate, 0).guarantees.epsilon
            self._epsilons[candidate] = None if found == math.inf else found
        return self._epsilons[candidate]


def _front(settings: Sequence[Setting]) -> list[Setting]:
    return [settings[place] for place in pareto_front([setting.point for setting in settings])]


def _mean_point(points: Sequence[Point]) -> Point:
    return Point(*(fmean(values) for values in zip(*points, strict=True)))

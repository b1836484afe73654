"""The search: which candidate is measured next, within a time budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple, Protocol

from instahide.attacks.sandbox import IsolatedRunner
from instahide.audit.advice.bench import Bench, Shows, point_of
from instahide.audit.advice.candidate import Candidate
from instahide.audit.advice.front import Point, pareto_front
from instahide.audit.advice.journal import Journal
from instahide.audit.advice.proposals import Proposals
from instahide.audit.advice.schema import Measurement, Setting, Targets
from instahide.audit.advice.verdict import room_of

#: Share of the budget for new candidates. The rest repeats those on the front with other seeds;
#: what that does not need goes to new candidates again.
EXPLORE = 0.6
#: Measurements of each setting on the front, each with another seed.
SEEDS = 3


class Watcher(Shows, Protocol):
    """Is told of the progress of a search."""

    def begins(self, candidate: Candidate | None, seed: int, share: float) -> None:
        """A measurement begins after this share of the budget; None is plain training."""
        ...

    def ended(self, measurement: Measurement) -> None:
        """A measurement was written."""
        ...


class Job(NamedTuple):
    """A measurement to make; None is plain training."""

    candidate: Candidate | None
    seed: int


@dataclass(eq=False)
class Search:
    """A search for the best trade-offs of accuracy and privacy.

    Attributes:
        bench: measures candidates.
        journal: keeps the measurements.
        proposals: proposes candidates.
        targets: what the user asks for; settings that meet both are repeated first.
        budget: seconds for all measurements, those of earlier runs included.
    """

    bench: Bench
    journal: Journal
    proposals: Proposals
    targets: Targets
    budget: float
    _epsilons: dict[Candidate, float | None] = field(default_factory=dict)

    def run(self, watcher: Watcher) -> None:
        """Measure until the budget is used up; the last measurement may exceed it.

        A search that was killed continues with the next measurement.
        """
        began, earlier = time.monotonic(), self.journal.seconds
        with IsolatedRunner() as attacker:
            while job := self._next(earlier + time.monotonic() - began):
                spent = earlier + time.monotonic() - began
                watcher.begins(job.candidate, job.seed, min(1.0, spent / self.budget))
                measurement = self._measure(job, attacker, watcher)
                self.journal.add(measurement)
                watcher.ended(measurement)

    def settings(self) -> list[Setting]:
        """All settings with a measurement: the front first, then the others by their room."""
        if not self.journal.reference:
            return []
        reference = fmean(self.journal.reference.values())
        found = [
            Setting.of(measured, reference, candidate.settings(), self._epsilon(candidate))
            for candidate, measured in self.journal.by_candidate().items()
        ]
        done = [setting for setting in found if setting.state == "done"]
        front = {id(done[place]) for place in pareto_front([s.point for s in done])}
        marked = [s.model_copy(update={"on_front": id(s) in front}) for s in found]
        order = {"done": 0, "not attacked": 1, "stopped": 2}
        return sorted(marked, key=lambda s: (not s.on_front, order[s.state], s.point))

    def _next(self, spent: float) -> Job | None:
        """The next measurement; None if there is nothing left, or no time."""
        if 0 not in self.journal.reference:
            return Job(None, 0)
        if spent >= self.budget:
            return None
        if spent < EXPLORE * self.budget and (new := self._new()):
            return Job(new, 0)
        repeated = self._repeated()
        if repeated is None:
            return Job(new, 0) if (new := self._new()) else None
        return repeated if repeated.seed in self.journal.reference else Job(None, repeated.seed)

    def _new(self) -> Candidate | None:
        reference = fmean(self.journal.reference.values())
        tried = {
            candidate: _mean_point([point_of(m, reference) for m in measured])
            for candidate, measured in self.journal.by_candidate().items()
        }
        return self.proposals.propose(tried)

    def _repeated(self) -> Job | None:
        """The setting on the front with the fewest seeds; of these, the nearest to the targets."""
        few = [s for s in self.settings() if s.on_front and s.seeds < SEEDS]
        if not few:
            return None
        chosen = min(few, key=lambda s: (s.seeds, room_of(s, self.targets), s.point))
        return Job(chosen.candidate, chosen.seeds)

    def _measure(self, job: Job, attacker: IsolatedRunner, watcher: Watcher) -> Measurement:
        if job.candidate is None:
            return self.bench.reference(job.seed)
        # A setting on the front is measured to the end again.
        rivals = self._rivals() if job.seed == 0 else []
        return self.bench.measure(job.candidate, job.seed, rivals, attacker, watcher)

    def _rivals(self) -> Sequence[Measurement]:
        return [
            m for m in self.journal.measurements if m.candidate is not None and m.state == "done"
        ]

    def _epsilon(self, candidate: Candidate) -> float | None:
        if candidate not in self._epsilons:
            found = self.bench.subject(candidate, 0).epsilon if candidate.noise else None
            self._epsilons[candidate] = found
        return self._epsilons[candidate]


def _mean_point(points: Sequence[Point]) -> Point:
    return Point(*(fmean(values) for values in zip(*points, strict=True)))

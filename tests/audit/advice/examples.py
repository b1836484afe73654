"""Measurements and settings for tests, made up; and a bench that computes them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from instahide.audit.advice.bench import Job
from instahide.audit.advice.candidate import Candidate
from instahide.audit.advice.encoder_candidate import (
    AnyCandidate,
    EncoderCandidate,
    never_recommended,
)
from instahide.audit.advice.schema import Measurement, Setting

REFERENCE = 0.95


def candidate(**changes: Any) -> Candidate:
    return Candidate(**{"scheme": "cross", "k": 4, "noise": 0.5, "copies": 2} | changes)


def other(encoder: str = "dp-instahide", *settings: str) -> EncoderCandidate:
    return EncoderCandidate(encoder=encoder, encoder_settings=settings)


def measurement(of: AnyCandidate | None = None, **changes: Any) -> Measurement:
    plain: dict[str, Any] = {
        "candidate": of or candidate(), "seed": 0, "early": 0.8, "accuracy": 0.93,
        "recovered": 0.1, "ceiling": 0.2, "attacks": {"demixing": 0.1}, "seconds": 10.0,
    }  # fmt: skip
    return Measurement(**plain | changes)


def setting(
    *measured: Measurement, of: AnyCandidate | None = None, front: bool = False, **changes: Any
) -> Setting:
    """A setting of these measurements, or of two alike with a thorough attack."""
    measured = measured or (
        measurement(of, **changes), measurement(of, seed=1, thorough=True, **changes),
    )  # fmt: skip
    found = measured[0].candidate
    assert found is not None
    settings, never = found.settings(), never_recommended(found, "single-label")
    made = Setting.of(measured, REFERENCE, {"data": "digits", **settings}, None, never)
    return made.model_copy(update={"on_front": front})


class Clock:
    """Time that passes only when something is measured."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class MadeUpBench:
    """Measures with formulas: noise costs accuracy, and encodings and k expose images.

    Attributes:
        jobs: what was measured, in order.
        cost: seconds of a measurement.
    """

    def __init__(self, clock: Clock, cost: float = 10.0) -> None:
        self.clock, self.cost = clock, cost
        self.split = SimpleNamespace(train=SimpleNamespace(task="single-label"))
        self.jobs: list[Job] = []

    def measure(
        self, job: Job, rivals: Sequence[Measurement], attacker: object, shows: object
    ) -> Measurement:
        self.jobs.append(job)
        self.clock.now += self.cost
        if job.candidate is None:
            return Measurement(candidate=None, seed=job.seed, accuracy=REFERENCE, seconds=self.cost)
        noise, copies = getattr(job.candidate, "noise", 1.0), job.candidate.copies
        exposed = min(1.0, 0.6 * copies**0.5 / (1 + 3 * noise**2))
        accuracy = REFERENCE - 0.1 * noise - 0.05 / copies - 0.001 * job.seed
        return measurement(
            job.candidate, seed=job.seed, thorough=job.thorough, recovered=exposed,
            ceiling=exposed if isinstance(job.candidate, Candidate) else None,
            accuracy=accuracy, seconds=self.cost,
        )  # fmt: skip

    def subject(self, of: AnyCandidate, seed: int) -> Any:
        return SimpleNamespace(guarantees=SimpleNamespace(epsilon=100.0))

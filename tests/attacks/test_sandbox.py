"""Attackers in a process of their own: it never had the truth, and takes nobody with it."""

from __future__ import annotations

import os
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest

from instahide.attacks import sandbox
from instahide.attacks.base import EncodingObservation, Finding, ThreatModel
from instahide.attacks.budget import Budget
from instahide.attacks.sandbox import IsolatedRunner
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.attacks import third_party
from tests.waiting import LIMIT


@pytest.fixture(autouse=True)
def _foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("Looks", "Raises", "Dies", "Hangs", "Refuses")
    monkeypatch.syspath_prepend(third_party.install(tmp_path, *names))


@pytest.fixture(scope="module")
def seen(private: ImageTable) -> tuple[EncodingObservation, GroundTruth]:
    return observe(private, None, Scheme.inside(2), ThreatModel(public="none"))


def test_the_process_never_had_the_truth(seen: tuple[EncodingObservation, GroundTruth]) -> None:
    with IsolatedRunner() as attacker:
        answer = attacker.run("foreign-looks", seen[0], LIMIT)
        assert answer.found is not None
        assert answer.found.statistics["reached"] == 0
        first = answer.found.statistics["process"]
        assert first != os.getpid()
        # One process serves all, while it lives; a failure of an attack does not end it.
        refused = attacker.run("foreign-refuses", seen[0], LIMIT)
        assert (refused.state, refused.reason) == ("refused", "It never does.")
        raised = attacker.run("foreign-raises", seen[0], LIMIT)
        assert raised.state == "failed"
        assert raised.reason.startswith("ValueError")
        assert "\x1b" not in raised.reason
        again = attacker.run("foreign-looks", seen[0], LIMIT)
        assert again.found is not None
        assert again.found.statistics["process"] == first
        # One that dies gets a successor.
        died = attacker.run("foreign-dies", seen[0], LIMIT)
        assert (died.state, "exit code 7" in died.reason) == ("failed", True)
        assert attacker.run("labels", seen[0], LIMIT).state == "done"
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)


@pytest.mark.parametrize("short", [False, True])
def test_an_attack_of_which_a_part_was_cut_short_ran_out_of_time(
    short: bool, seen: tuple[EncodingObservation, GroundTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(observation: EncodingObservation, budget: Budget, progress: object) -> Finding:
        return Finding(statistics={"over": float(budget.part(0.0 if short else LIMIT).over)})

    stub = SimpleNamespace(run=run, applies=lambda _: None, observes=EncodingObservation)
    monkeypatch.setattr(sandbox, "attack_named", lambda _: stub)
    monkeypatch.setattr(sandbox, "refusal", lambda *_: None)
    ours, theirs = Pipe()
    with ours, theirs:
        answer = sandbox._answer(theirs, "stub", seen[0], LIMIT)
    assert (answer.state, answer.out_of_time) == ("done", short)


@pytest.mark.slow
def test_an_attack_that_does_not_end_is_ended(
    seen: tuple[EncodingObservation, GroundTruth], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, float]] = []
    with IsolatedRunner() as attacker:
        # Its process is there, so that the time is the attack's alone.
        assert attacker.run("labels", seen[0], LIMIT).state == "done"
        # A clock that stands still until the attack has begun to hang.
        clock = SimpleNamespace(monotonic=lambda: 1000.0 * len(heard))
        monkeypatch.setattr(sandbox, "time", clock)
        answer = attacker.run("foreign-hangs", seen[0], LIMIT / 2, lambda *said: heard.append(said))
    assert (answer.state, "stopped" in answer.reason) == ("failed", True)
    assert answer.out_of_time
    assert heard == [("hanging", 0.0)]
    assert answer.seconds == 1000

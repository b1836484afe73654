"""A measurement ends early only where another setting is clearly better in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from instahide import open_split
from instahide.attacks.registry import registered
from instahide.attacks.sandbox import IsolatedRunner
from instahide.audit import scenarios
from instahide.audit.advice import bench as module
from instahide.audit.advice.bench import (
    LEARNED,
    LEARNED_ANY,
    QUICK,
    WARM_UP,
    Bench,
    Job,
    attacks_on,
    point_of,
)
from instahide.audit.advice.decision import decide
from instahide.audit.advice.front import Point
from instahide.audit.advice.schema import Measurement, Targets
from instahide.audit.report.schema import AttackResult
from instahide.audit.schedule import Task
from instahide.audit.session import Session
from instahide.training.settings import TrainSettings
from tests.audit.advice.examples import candidate, measurement, other, setting
from tests.audit.examples import recovered, result

SPLIT = open_split("digits")
CANDIDATE = candidate(scheme="inside", noise=0.0)


class Silent:
    def step(self, what: str) -> None:
        pass


def made(folder: Path, epochs: int = 6, **changes: Any) -> Bench:
    settings = TrainSettings.from_values({"epochs": epochs, "batch_size": 256})
    plain: dict[str, Any] = {
        "source": "digits", "split": SPLIT, "public": None, "settings": settings, "folder": folder,
        "attacks": registered().attacks, "attack_seconds": 1.0, "thorough_seconds": 5.0,
    }  # fmt: skip
    return Bench(**plain | changes)


def measure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, scores: list[float], *rivals: Measurement
) -> Measurement:
    """A measurement with these accuracies, a ceiling of 0.4, and 0.2 recovered by an attack."""

    def learned(*_: object) -> Iterator[float]:
        yield from scores

    found = [result(name, state="not tried") for name in QUICK]
    found.append(recovered(20, attack=LEARNED))
    monkeypatch.setattr(Bench, "_learned", learned)
    monkeypatch.setattr(Bench, "_attacked", lambda *_: found)
    monkeypatch.setattr(module, "_ceiling", lambda _: 0.4)
    return bench.measure(Job(CANDIDATE, 0), rivals, None, Silent())  # type: ignore[arg-type]


def test_without_a_rival_it_is_measured_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure(made(tmp_path), monkeypatch, [0.5, 0.9])
    assert (found.state, found.early, found.accuracy) == ("done", 0.5, 0.9)
    assert (found.recovered, found.ceiling, found.exposure) == (0.2, 0.4, 0.4)
    assert found.missing == []
    assert point_of(found, 0.95) == pytest.approx(Point(0.4, 5.0))


@pytest.mark.parametrize(
    ("rival", "state"),
    [
        ({"early": 0.61, "accuracy": 0.99, "ceiling": 0.3}, "stopped"),
        ({"early": 0.55, "accuracy": 0.92, "ceiling": 0.4}, "not attacked"),
        # Better by less than the margins.
        ({"early": 0.59, "accuracy": 0.905, "ceiling": 0.3}, "done"),
        # More exposed than the ceiling, which the attacks may not exceed.
        ({"early": 0.9, "accuracy": 0.99, "ceiling": 0.41}, "done"),
    ],
)
def test_a_rival_ends_it_only_if_it_is_better_in_both(
    rival: dict[str, float], state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure(made(tmp_path), monkeypatch, [0.5, 0.9], measurement(**rival))
    assert found.state == state
    assert found.ceiling == 0.4
    assert (found.accuracy is None) == (state == "stopped")
    assert (found.recovered is None) == (state != "done")


def test_a_single_epoch_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(made(tmp_path, epochs=1), monkeypatch, [0.9], measurement(early=0.99))
    assert (found.state, found.early, found.accuracy) == ("not attacked", None, 0.9)


def test_an_attack_without_a_result_is_missing() -> None:
    def missing(*found: Any, thorough: bool = False) -> list[str]:
        return module._missing([result("averaging"), *found], (*QUICK, LEARNED), thorough)

    slow = {"out_of_time": True}
    network = recovered(3, attack=LEARNED, **slow, figures={"steps": 150.0})
    assert missing(network) == ["averaging-absolute", "reconstruction"]
    assert LEARNED in missing(network, thorough=True)
    assert LEARNED in missing(recovered(3, attack=LEARNED, **slow, figures={"steps": 99.0}))
    assert "reconstruction" in missing(recovered(3, attack="reconstruction", **slow))
    assert "reconstruction" in missing(result("reconstruction", state="failed"))
    assert "reconstruction" not in missing(result("reconstruction", state="not tried"))


@pytest.mark.parametrize("name", [LEARNED, LEARNED_ANY])
def test_a_network_with_few_steps_is_missing_whatever_is_said_of_its_time(name: str) -> None:
    def missing(steps: float, **changes: Any) -> bool:
        found = recovered(3, attack=name, figures={"steps": steps}, **changes)
        return module._missing([found], (name,), thorough=False) == [name]

    assert missing(20.0)
    assert missing(20.0, out_of_time=True)
    assert not missing(100.0, out_of_time=True)
    # Without images to train on there are no steps.
    assert module._missing([recovered(3, attack=name)], (name,), thorough=True) == []
    # Where all steps were done, there are enough of them.
    assert registered().attacks[name].steps >= module.LEAST_THOROUGH  # type: ignore[attr-defined]


def test_a_ceiling_that_is_not_computed_is_no_ceiling_of_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = made(tmp_path)
    subject = bench.subject(candidate(scheme="inside", noise=0.0, copies=1), 0)
    assert module._ceiling(subject) is not None
    monkeypatch.setattr(scenarios, "MOST_VALUES", 100 * 64 - 1)
    assert module._ceiling(subject) is None
    found = [recovered(0, attack=LEARNED), *(result(name, state="not tried") for name in QUICK)]
    monkeypatch.setattr(Bench, "_learned", lambda *_: iter([0.95, 0.95]))
    monkeypatch.setattr(Bench, "_attacked", lambda *_: found)
    measured = [
        bench.measure(Job(CANDIDATE, seed, seed == 1), [], None, Silent())  # type: ignore[arg-type]
        for seed in (0, 1)
    ]
    assert [(m.state, m.ceiling, m.recovered) for m in measured] == [("done", None, 0.0)] * 2
    assert decide([setting(*measured)], Targets(max_recovered=0.1, max_drop=5)).verdict == "none"


def test_the_network_gets_more_time_where_it_was_slow(tmp_path: Path) -> None:
    bench = made(tmp_path)
    assert [bench._network_seconds(LEARNED, thorough) for thorough in (False, True)] == [1.0, 5.0]
    bench._pace[LEARNED] = 0.1
    assert bench._network_seconds(LEARNED, False) == pytest.approx(20.0)
    assert bench._network_seconds(LEARNED, True) == pytest.approx(200.0)
    # The pace of one attack says nothing of another.
    assert bench._network_seconds(LEARNED_ANY, False) == 1.0


def test_the_first_run_of_a_network_compiles_code_and_is_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[float] = []
    kept: dict[Task, AttackResult] = {}

    def run(
        _: Session, tasks: Sequence[Task], attacks: object, seconds: float, *rest: object
    ) -> Iterator[AttackResult]:
        for task in tasks:
            if task.attack == LEARNED and task not in kept:
                runs.append(seconds)
                steps = 2.0 if len(runs) == 1 else 200.0
                kept[task] = recovered(20, attack=LEARNED, figures={"steps": steps})
        yield from ()

    def done(_: Session, tasks: Sequence[Task]) -> dict[Task, AttackResult]:
        return {task: kept[task] for task in tasks if task in kept}

    monkeypatch.setattr(Session, "run", run)
    monkeypatch.setattr(Session, "done", done)
    monkeypatch.setattr(Session, "discard", lambda _, task: kept.pop(task))
    bench = made(tmp_path)

    def attacked(seed: int) -> list[AttackResult]:
        job = Job(CANDIDATE, seed)
        return bench._attacked(job, bench.subject(CANDIDATE, seed), None, Silent())  # type: ignore[arg-type]

    assert [one.figures["steps"] for one in attacked(0)] == [200.0]
    assert runs == [WARM_UP, 1.0]
    kept.clear()
    attacked(1)
    assert len(runs) == 3
    # What a killed search has measured is kept by one that continues.
    bench._pace.clear()
    attacked(1)
    assert len(runs) == 3


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["dp-instahide", "block-scrambling", "neuracrypt", "mixup"])
def test_other_encoders_are_trained_and_attacked(encoder: str, tmp_path: Path) -> None:
    settings = ("patch=2",) if encoder == "neuracrypt" else ()
    named = other(encoder, *(("block=2",) if encoder == "block-scrambling" else settings))
    # After 2 epochs, a network of NeuraCrypt is still as good as a guess.
    bench = made(tmp_path, epochs=20 if encoder == "neuracrypt" else 2, attack_seconds=20.0)
    with IsolatedRunner() as attacker:
        found = bench.measure(Job(named, 0), [], attacker, Silent())
    subject = bench.subject(named, 0)
    assert (found.state, found.missing) == ("done", [])
    assert set(found.attacks) == set(attacks_on(subject))
    assert (LEARNED_ANY in found.attacks) != subject.is_scheme
    assert found.recovered is not None
    assert (found.ceiling is None) != subject.is_scheme
    assert found.accuracy is not None
    assert found.accuracy > 0.1


def test_other_seeds_attack_other_images_under_the_same_scheme(tmp_path: Path) -> None:
    bench = made(tmp_path)
    one, again, other = (bench.subject(CANDIDATE, seed).known_key_target() for seed in (0, 0, 1))
    assert len(one[0]) == bench.attacked_images == 100
    assert one[1] == CANDIDATE.copies
    assert (one[0].pixels == again[0].pixels).all()
    assert (one[0].pixels != other[0].pixels).any()

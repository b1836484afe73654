"""Attacks see what the threat model grants, and are found through entry points."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from torch import nn

from instahide.attacks.base import (
    Attack,
    EncodingObservation,
    Finding,
    LocalTraining,
    ThreatModel,
    Update,
    UpdateObservation,
)
from instahide.attacks.budget import Budget
from instahide.attacks.refusal import refusal
from instahide.attacks.registry import GROUP, attack_named, registered
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.waiting import ticks

ROOT = Path(__file__).resolve().parents[2]


def declared() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points: dict[str, str] = project["entry-points"][GROUP]
    return points


def points(entries: dict[str, str]) -> list[EntryPoint]:
    return [EntryPoint(name, value, GROUP) for name, value in entries.items()]


def test_every_attack_of_ours_is_declared_under_its_own_name() -> None:
    found = registered(points(declared()))
    assert found.broken == {}
    assert set(found.attacks) == set(declared())
    for name, attack in found.attacks.items():
        assert isinstance(attack, Attack)
        assert attack.name == name
        assert attack.title
        assert attack.paper


class Foreign:
    name, title, paper = "foreign", "Somebody else's", "unpublished"
    observes = EncodingObservation

    def applies(self, observation: EncodingObservation) -> str | None:
        return None

    def run(self, observation: EncodingObservation, budget: Budget, progress: object) -> Finding:
        return Finding()


def test_a_package_of_others_shows_up_and_a_broken_one_stops_nothing() -> None:
    sys.modules["foreign_attack"] = sys.modules[__name__]
    entries = {
        "foreign": "foreign_attack:Foreign",
        "missing": "no_such_module:Attack",
        "wrong": "builtins:dict",
    }
    try:
        found = registered(points(entries))
    finally:
        del sys.modules["foreign_attack"]
    assert set(found.attacks) == {"foreign"}
    assert {name.split()[0] for name in found.broken} == {"missing", "wrong"}


def test_an_attack_is_refused_observations_of_another_kind() -> None:
    update = UpdateObservation(
        Scheme.inside(2), (0.5,), (0.2,), ThreatModel(), (1, 8, 8), nn.Identity(),
        Update({}, LocalTraining()),
    )  # fmt: skip
    assert refusal(Foreign(), update) == "The attacker sees no encodings."
    for name, attack in registered(points(declared())).attacks.items():
        if attack.observes is not UpdateObservation:
            assert refusal(attack, update) == attack.observes.absent, name


def test_a_name_can_be_taken_only_once() -> None:
    ours = declared()["averaging"]
    found = registered([*points({"averaging": ours}), *points({"again": ours})])
    assert set(found.attacks) == {"averaging"}
    assert list(found.broken) == [f"again ({ours})"]


def test_an_unknown_attack_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InstaHideError, match="no attack 'no-such'"):
        attack_named("no-such")


@pytest.mark.parametrize("changes", [{"encodings_per_image": 0}, {"known_mixes": -1}])
def test_a_threat_model_that_shows_nothing_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(InstaHideError):
        ThreatModel(**changes)  # type: ignore[arg-type]


def test_a_budget_runs_out() -> None:
    budget = Budget(3, clock=ticks())
    assert [budget.left for _ in range(5)] == [2, 1, 0, 0, 0]
    assert Budget().left == float("inf")


def test_a_part_of_a_budget_begins_when_it_is_taken_and_has_its_clock() -> None:
    budget = Budget(clock=ticks())
    assert [budget.left for _ in range(5)] == [float("inf")] * 5
    part = budget.part(2)
    assert [part.left for _ in range(3)] == [1, 0, 0]


def test_a_budget_knows_whether_it_or_a_part_of_it_cut_something_short() -> None:
    for tell in (lambda part: part.over, lambda part: part.cut()):
        whole = Budget(100, clock=ticks())
        half, other = whole.part(50), whole.part(50)
        assert not half.over
        quarter = half.part(2)
        assert [quarter.left, quarter.left] == [1, 0]
        assert not quarter.cut_short
        tell(quarter)
        assert [each.cut_short for each in (quarter, half, whole, other)] == [*[True] * 3, False]
        assert whole.left > 0


def test_a_budget_is_of_wall_time_unless_said_otherwise() -> None:
    budget = Budget(3600)
    first = budget.left
    assert first > budget.left > 0


@pytest.mark.slow
def test_attacks_load_neither_truth_nor_keys_of_an_encoder() -> None:
    """In a process of their own: nothing that they import knows the scorer's side."""
    modules = sorted({value.split(":")[0] for value in declared().values()})
    program = (
        f"import sys; [__import__(name) for name in {modules!r}]; "
        "print([name for name in sys.modules if name.startswith('instahide.audit') "
        "or name == 'instahide.encryption.known_keys'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "src",
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"

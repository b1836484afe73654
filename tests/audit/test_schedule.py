"""The order of attacks, their parts of the time, and names of files."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from pathlib import Path

import pytest

from instahide.attacks.registry import GROUP
from instahide.audit.schedule import (
    BASELINES,
    COSTS,
    CURVES,
    ENDLESS,
    MOST_EPOCHS,
    ON_FEDERATIONS,
    PUBLISHED,
    SENT,
    UPDATES,
    Task,
    parse_duration,
    seconds_for,
    select_attacks,
    tasks,
)
from instahide.errors import InstaHideError

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def test_cheap_attacks_come_first_endless_ones_last_and_curves_after_all() -> None:
    names = ["seed-search", "reconstruction", "somebodys", "averaging", "labels"]
    found = tasks(names, 20, published=20)
    whole = [task.attack for task in found if not task.point and task.on == "rehearsal"]
    assert whole == ["labels", "averaging", "reconstruction", "somebodys", "seed-search"]
    assert [task.attack for task in found if task.on == "published"] == list(PUBLISHED)
    points = [(task.copies, task.attack) for task in found if task.point]
    assert points == [(n, name) for n in (2, 5, 10) for name in CURVES if name in names]
    assert [task.point for task in found] == sorted(task.point for task in found)


def test_curves_and_published_attacks_are_attacks_of_ours() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    ours = set(project["entry-points"][GROUP])
    assert {*BASELINES, *CURVES, *PUBLISHED, *UPDATES} <= ours
    assert ours == {*COSTS, *ENDLESS}


def test_what_is_given_out_is_never_more_than_there_is() -> None:
    wanted, left = tasks(["labels", "reconstruction", "averaging", "seed-search"], 50), 100.0
    for number, task in enumerate(wanted):
        share = seconds_for(task, wanted[number + 1 :], left)
        assert 0 < share <= min(left, task.cost.most)
        left -= share
    assert left >= 0
    # What a quick attack leaves is for those that come later.
    assert seconds_for(wanted[2], wanted[3:], 99.0) > seconds_for(wanted[2], wanted[3:], 50.0)


def test_names_of_files_are_plain_and_differ() -> None:
    names = ["a/../b", "a_.._b", "A", "a", "x" * 300, "\x00", "é"]
    files = [Task(name, 5).file for name in names] + [Task("a", 5, on="published").file]
    assert len(set(files)) == len(files)
    assert all(re.fullmatch(r"[a-z0-9_-]{1,70}", file) for file in files)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2 m ", 120)]
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0.0m", "-1m", "m", "1d", "1e3", "nan", "inf", "1m30s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InstaHideError, match="not a time"):
        parse_duration(text)


def test_only_attacks_that_there_are_can_be_chosen() -> None:
    assert select_attacks(["b", "a"], []) == ["a", "b"]
    assert select_attacks(["b", "a"], ["b", "b"]) == ["b"]
    assert select_attacks(["b", *BASELINES], []) == ["b"]
    assert select_attacks(["b", *BASELINES], ["carlini"]) == ["carlini"]
    with pytest.raises(InstaHideError, match="no attack 'c'"):
        select_attacks(["b", "a"], ["c"])


def test_an_attack_on_all_updates_runs_on_gradients_and_on_changes_of_weights() -> None:
    found = tasks(ON_FEDERATIONS, 80, published=80)
    assert [(task.attack, task.on, task.copies) for task in found] == [
        ("federated", "fedsgd", MOST_EPOCHS),
        ("federated", "fedavg", MOST_EPOCHS),
    ]
    assert len({task.file for task in found}) == 2


def test_attacks_on_updates_have_one_encoding_and_an_end() -> None:
    found = tasks([*UPDATES, "labels"], 20, published=20)
    updates = [task for task in found if task.on in SENT]
    assert [(task.attack, task.on) for task in updates] == list(product(UPDATES, SENT))
    assert all(task.copies == 1 and task.cost.most < 600 for task in updates)
    assert [task.attack for task in found if task not in updates] == ["labels"]
    # Where nothing is encrypted there is nothing to compare with.
    assert {task.on for task in tasks(UPDATES, 20, encrypted=False)} == {"update"}

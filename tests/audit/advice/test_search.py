"""The search: within its budget, resumed without repetition, and on the front at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instahide import open_split
from instahide.audit import fingerprints
from instahide.audit.advice.bench import Job
from instahide.audit.advice.candidate import SEARCHED, Space
from instahide.audit.advice.decision import decide
from instahide.audit.advice.encoder_candidate import AnyCandidate, EncoderCandidate
from instahide.audit.advice.front import Point
from instahide.audit.advice.journal import MEASUREMENTS, Journal
from instahide.audit.advice.schema import Measurement, Targets
from instahide.audit.advice.search import Search
from instahide.audit.fingerprints import of_table
from instahide.data import ImageTable
from instahide.errors import DamagedFileError, InstaHideError
from tests.audit.advice.examples import Clock, MadeUpBench, candidate, measurement, other

TABLE = open_split("digits").test
IDENTITY = {"images": "abc", "training": {"epochs": 3}}


class Silent:
    """A watcher that may stop the search, as Ctrl-C or a kill would."""

    def __init__(self, most: int = 10**6) -> None:
        self.most, self.shares = most, list[float]()

    def step(self, what: str) -> None:
        pass

    def begins(self, job: Job, share: float) -> None:
        self.shares.append(share)

    def ended(self, measurement: Measurement) -> None:
        self.most -= 1
        if self.most == 0:
            raise KeyboardInterrupt


class InOrder:
    """Proposes the first candidates, then every 97th of the grid, without a model of them."""

    def __init__(self, *others: EncoderCandidate) -> None:
        self.space = Space(SEARCHED, "single-label")
        grid = self.space.candidates()
        self.order = list(dict.fromkeys([*others, *self.space.first(), *grid[::97], *grid]))

    def propose(self, tried: Mapping[AnyCandidate, Point]) -> AnyCandidate | None:
        return next((candidate for candidate in self.order if candidate not in tried), None)


def search(folder: Path, budget: float, **changes: Any) -> tuple[Search, MadeUpBench]:
    clock = Clock()
    bench = MadeUpBench(clock)
    made = Search(
        bench,  # type: ignore[arg-type]
        Journal.open(folder, IDENTITY),
        InOrder(*changes.get("others", ())),  # type: ignore[arg-type]
        changes.get("targets", Targets(max_recovered=0.1, max_drop=20.0)),
        budget,
        clock,
    )
    return made, bench


def test_the_budget_is_exceeded_by_less_than_a_measurement(tmp_path: Path) -> None:
    made, bench = search(tmp_path / "out", 605.0)
    watcher = Silent()
    made.run(watcher)
    assert bench.clock.now == 610.0
    assert watcher.shares == sorted(watcher.shares)
    # Nothing is left to do without more time.
    made.run(watcher)
    assert len(bench.jobs) == 61


def test_plain_training_comes_first_and_every_seed_has_it(tmp_path: Path) -> None:
    made, bench = search(tmp_path / "out", 600.0)
    made.run(Silent())
    assert bench.jobs[0] == Job(None, 0)
    seen = set()
    for job in bench.jobs:
        seen.add(job.seed) if job.candidate is None else None
        assert job.seed in seen


def test_what_is_on_the_front_is_repeated_and_the_answer_attacked_thoroughly(
    tmp_path: Path,
) -> None:
    targets = Targets(max_recovered=0.1, max_drop=25.0)
    made, _ = search(tmp_path / "out", 900.0, targets=targets)
    made.run(Silent())
    settings = made.settings()
    front = [setting for setting in settings if setting.on_front]
    assert len(front) >= 5
    assert sum(setting.seeds >= 2 for setting in front) >= len(front) / 2
    decision = decide(settings, made.targets)
    assert decision.verdict == "recommended"
    assert decision.recommended is not None
    assert decision.recommended.thorough == 1
    assert decision.recommended.drop_spread is not None
    assert decision.recommended.epsilon == 100.0


def test_a_stopped_search_goes_on_without_repeating_anything(tmp_path: Path) -> None:
    made, bench = search(tmp_path / "out", 400.0)
    with pytest.raises(KeyboardInterrupt):
        made.run(Silent(most=13))
    kept = {file: file.read_bytes() for file in (tmp_path / "out" / MEASUREMENTS).iterdir()}
    assert len(kept) == 13
    again, more = search(tmp_path / "out", 400.0)
    again.run(Silent())
    # The time of the first part counts.
    assert len(more.jobs) == 27
    jobs = [*bench.jobs, *more.jobs]
    assert len(set(jobs)) == len(jobs)
    assert all(file.read_bytes() == content for file, content in kept.items())


def test_other_targets_are_answered_from_what_was_measured(tmp_path: Path) -> None:
    made, _ = search(tmp_path / "out", 600.0)
    made.run(Silent())
    strict, bench = search(
        tmp_path / "out", 600.0, targets=Targets(max_recovered=0.0, max_drop=0.0)
    )
    strict.run(Silent())
    assert bench.jobs == []
    assert decide(strict.settings(), strict.targets).verdict == "none"


def test_settings_that_were_stopped_are_on_no_front(tmp_path: Path) -> None:
    made, _ = search(tmp_path / "out", 100.0)
    made.journal.add(Measurement(candidate=None, seed=0, accuracy=0.9))
    stopped = measurement(state="stopped", accuracy=None, recovered=None, ceiling=0.0)
    made.journal.add(stopped)
    (setting,) = made.settings()
    assert not setting.on_front
    assert setting.drop == pytest.approx(10.0)


def test_without_a_result_of_an_attack_a_setting_is_on_no_front(tmp_path: Path) -> None:
    made, _ = search(tmp_path / "out", 100.0)
    made.journal.add(Measurement(candidate=None, seed=0, accuracy=0.95))
    made.journal.add(measurement(missing=["demixing"], recovered=0.0, ceiling=0.0))
    known = measurement(candidate(noise=1.0), accuracy=0.9)
    made.journal.add(known)
    assert [setting.on_front for setting in made.settings()] == [True, False]
    assert made.settings()[0].candidate == known.candidate


def test_without_a_ceiling_a_setting_stops_no_other_and_beats_no_other(tmp_path: Path) -> None:
    """An attack that found nothing in another encoder says less than a low ceiling."""
    named = (other(), other("dp-instahide", "noise=2.0"), other("neuracrypt"))
    made, _ = search(tmp_path / "out", 100.0, others=named)
    made.journal.add(Measurement(candidate=None, seed=0, accuracy=0.95))
    made.journal.add(measurement(ceiling=0.4, recovered=0.1, accuracy=0.90))
    unknown: dict[str, Any] = {"ceiling": None, "recovered": 0.0}
    made.journal.add(measurement(named[0], accuracy=0.94, **unknown))
    made.journal.add(measurement(named[1], accuracy=0.93, **unknown))
    made.journal.add(measurement(named[2], accuracy=0.95, **unknown))
    assert [m.candidate for m in made._rivals()] == [candidate()]
    front = {s.candidate.name: s.on_front for s in made.settings()}
    assert front == {
        candidate().name: True, named[0].name: True, named[1].name: False, named[2].name: False,
    }  # fmt: skip


def test_other_encoders_are_measured_repeated_and_attacked_thoroughly(tmp_path: Path) -> None:
    named = (other(), other("dp-instahide", "noise=2.0"))
    made, bench = search(tmp_path / "out", 900.0, others=named)
    made.run(Silent())
    of_others = [job for job in bench.jobs if job.candidate in named]
    assert {job.candidate for job in of_others} == set(named)
    assert max(job.seed for job in of_others) >= 1
    again, _ = search(tmp_path / "out", 900.0, others=named)
    assert [s.candidate for s in again.settings()] == [s.candidate for s in made.settings()]


def test_what_another_process_measured_meanwhile_is_not_measured_again(tmp_path: Path) -> None:
    waiting, bench = search(tmp_path / "out", 600.0)
    other, _ = search(tmp_path / "out", 600.0)
    other.run(Silent())
    waiting.run(Silent())
    assert bench.jobs == []
    assert len(waiting.settings()) == len(other.settings()) > 0


def test_another_search_is_not_continued(tmp_path: Path) -> None:
    Journal.open(tmp_path / "out", IDENTITY)
    with pytest.raises(InstaHideError, match="images differ"):
        Journal.open(tmp_path / "out", {**IDENTITY, "images": "other"})
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes.txt").write_text("mine")
    with pytest.raises(InstaHideError, match="something else"):
        Journal.open(tmp_path / "else", IDENTITY)


def test_measurements_of_another_version_are_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "__version__", "0.7.1")
    Journal.open(tmp_path / "out", IDENTITY)
    monkeypatch.setattr(fingerprints, "__version__", "0.7.9")
    Journal.open(tmp_path / "out", IDENTITY)
    monkeypatch.setattr(fingerprints, "__version__", "0.8.0")
    with pytest.raises(InstaHideError, match="version of instahide differ"):
        Journal.open(tmp_path / "out", IDENTITY)


def other_tables() -> dict[str, ImageTable]:
    """A table that differs from `TABLE` in one field, for each of its fields."""
    changes: dict[str, Any] = {
        "pixels": 255 - TABLE.pixels, "labels": TABLE.labels[::-1].copy(),
        "classes": tuple(f"the {name}" for name in TABLE.classes), "mean": (0.25,), "std": (0.5,),
        "sources": np.ones((len(TABLE), 1, 2), np.uint64), "value_range": (0.0, 200.0),
        "task": "multi-label", "groups": np.ones((len(TABLE), 2), np.uint64), "absolute": True,
    }  # fmt: skip
    found = {name: replace(TABLE, **{name: value}) for name, value in changes.items()
             if name != "task"}  # fmt: skip
    findings = np.eye(len(TABLE.classes), dtype=np.float32)[TABLE.labels]
    found["task"] = replace(TABLE, task="multi-label", labels=findings)
    return found


def test_every_field_of_the_images_is_in_their_fingerprint() -> None:
    others = other_tables()
    assert set(others) == {field.name for field in fields(ImageTable)}
    prints = {name: of_table(table) for name, table in others.items()}
    assert len(set(prints.values()) | {of_table(TABLE), of_table(None)}) == len(prints) + 2
    assert of_table(replace(TABLE, pixels=TABLE.pixels.copy())) == of_table(TABLE)


def test_a_deleted_measurement_repeats_no_seed_and_replaces_no_other(tmp_path: Path) -> None:
    """The remedy for a damaged measurement is to delete its file."""
    made, _ = search(tmp_path / "out", 1000.0)
    made.journal.add(Measurement(candidate=None, seed=0, accuracy=0.95))
    for seed in range(3):
        made.journal.add(measurement(seed=seed))
    next((tmp_path / "out" / MEASUREMENTS).glob("*-seed1.json")).unlink()
    again, _ = search(tmp_path / "out", 1000.0)
    (setting,) = again.settings()
    assert again._seed(setting) == 3
    before = {file.name for file in (tmp_path / "out" / MEASUREMENTS).iterdir()}
    again.journal.add(measurement(seed=3))
    (added,) = {file.name for file in (tmp_path / "out" / MEASUREMENTS).iterdir()} - before
    assert added.startswith("00004-")
    assert added == max([added, *before])


def test_a_damaged_measurement_is_named(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "out", IDENTITY)
    journal.add(measurement())
    (file,) = (tmp_path / "out" / MEASUREMENTS).iterdir()
    file.write_text(file.read_text()[:40])
    with pytest.raises(DamagedFileError, match=file.name):
        Journal.open(tmp_path / "out", IDENTITY)

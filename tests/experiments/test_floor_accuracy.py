"""What an error floor costs in accuracy: its runs, its rows and its tables."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import error_floors, floor_accuracy, floor_tables
from experiments.floor_accuracy import Run
from experiments.records import END, START, rows_of


def test_the_page_shows_what_was_measured() -> None:
    page = floor_tables.PAGE.read_text(encoding="utf-8")
    attacks, training = rows_of(floor_tables.ATTACKED), rows_of(floor_tables.TRAINED)
    assert attacks
    assert training
    assert floor_tables.rewritten(page, attacks, training) == page


def test_no_floor_was_beaten_in_what_was_measured() -> None:
    found = error_floors.beaten(rows_of(floor_tables.ATTACKED))
    assert found == {"unbiased": [], "prior": []}


def test_a_run_measures_accuracy_and_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(floor_accuracy.EPOCHS, "digits", 1)
    found = floor_accuracy.measure(Run("digits", "mixup", 1, 1, 0.5, 0))
    # One image, one encoding, a coefficient of 1: the floor is noise squared.
    assert found["squares_most"] == 1.0
    assert found["floor_least"] == found["floor_median"] == 25.0
    assert float(str(found["accuracy"])) > 10
    assert "floor_least" not in floor_accuracy.measure(Run("digits", "plain", 1, 1, 0.0, 0))


def test_patches_have_named_classes_and_other_crops_for_testing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(floor_accuracy, "CROPS", 10)
    floor_accuracy.split_of.cache_clear()
    monkeypatch.setitem(floor_accuracy.EPOCHS, "patches", 1)
    split = floor_accuracy.split_of("patches")
    found = floor_accuracy.measure(Run("patches", "mixup", 1, 1, 0.5, 0))
    floor_accuracy.split_of.cache_clear()
    assert found["squares_most"] == 1.0
    assert 3.5 < len(split.train) / len(split.test) < 4.5
    assert set(np.unique(split.test.labels)) == set(range(len(split.train.classes)))


def rows() -> list[dict[str, str]]:
    plain = {"data": "digits", "scheme": "plain", "k": "1", "copies": "1", "noise": "0.0"}
    return [
        {**plain, "accuracy": "95"},
        {**plain, "accuracy": "97"},
        _noisy("0.5", "93", "25"),
        _noisy("1.0", "85", "100"),
        _noisy("0.0", "95", "0"),
    ]


def _noisy(noise: str, accuracy: str, floor: str) -> dict[str, str]:
    return {
        "data": "digits", "scheme": "mixup", "k": "2", "copies": "1", "noise": noise,
        "accuracy": accuracy, "floor_least": floor, "floor_median": floor, "squares_most": "1",
    }  # fmt: skip


def test_the_best_setting_is_the_highest_floor_within_the_drop() -> None:
    found = floor_accuracy.best(rows())["digits"]
    assert (found["noise"], found["drop"], found["floor_least"]) == ("0.5", 3.0, 25.0)
    text = floor_tables.rewritten(f"{START}{END}", [], rows())
    assert "| digits | mixup | 2 | 1 | 0.5 | 93.0 | 3.0 | 25.0 | 25.0 | 1 |" in text
    assert "| digits | mixup | 2 | 1 | 0 | 95.0 | 1.0 | none | none | 1 |" in text
    assert "is 25.0 % of the variance" in text
    worse = [row | {"accuracy": "20"} if row["scheme"] == "mixup" else row for row in rows()]
    assert "no setting that was tried" in floor_tables.rewritten(f"{START}{END}", [], worse)


def test_rows_are_kept_and_no_run_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Run] = []

    def measure(run: Run) -> dict[str, object]:
        done.append(run)
        return {"accuracy": 90.0, "floor_least": 20.0, "floor_median": 20.0, "squares_most": 1.0}

    monkeypatch.setattr(floor_accuracy, "measure", measure)
    out = tmp_path / "accuracy.csv"
    for seeds in ("1", "2"):
        command = ["floor_accuracy", "--data", "digits", "--noise", "0,1", "--seeds", seeds]
        monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
        floor_accuracy.main()
    # Two schemes, three k, two numbers of encodings, two noises; and plain training.
    assert len(done) == len(set(done)) == len(rows_of(out)) == 2 * 25

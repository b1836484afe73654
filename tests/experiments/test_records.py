"""The helpers that experiments share: which runs are missing, and means by name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from experiments.records import add, keys_in, mean_by, missing, rows_of


class Run(NamedTuple):
    kind: str
    copies: int
    share: float


RUNS = [Run(kind, copies, 0.5) for copies in (1, 20) for kind in ("faces", "animals")]


def test_runs_with_a_row_are_not_missing(tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    assert missing(out, Run._fields, iter(RUNS)) == RUNS
    assert keys_in(out, Run._fields) == set()
    # Other columns, and their order in the file, do not matter.
    for run in (RUNS[0], RUNS[3]):
        add(out, ["value", *reversed(Run._fields)], {"value": 1.0, **run._asdict()})
    assert missing(out, Run._fields, RUNS) == [RUNS[1], RUNS[2]]
    assert keys_in(out, ("kind",)) == {("faces",), ("animals",)}
    # A run that differs in one value is another run.
    assert missing(out, Run._fields, [Run("faces", 1, 0.25)]) == [Run("faces", 1, 0.25)]


def test_means_are_by_name_in_the_order_of_the_rows(tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    for value, run in zip((1.0, 2.0, 4.0, 6.25), RUNS, strict=True):
        add(out, [*Run._fields, "value"], {**run._asdict(), "value": value})
    rows = rows_of(out)
    assert mean_by(rows, "{kind} at {share}".format_map, "value", 2) == {
        "faces at 0.5": 2.5, "animals at 0.5": 4.12,
    }  # fmt: skip
    assert list(mean_by(rows, lambda row: row["copies"], "value")) == ["1", "20"]
    assert mean_by([], str, "value") == {}


def test_rows_are_not_added_to_a_file_with_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    add(path, ["a", "b"], {"a": 1, "b": 2})
    before = path.read_bytes()
    with pytest.raises(SystemExit, match="other columns"):
        add(path, ["a", "new", "b"], {"a": 1, "new": 3, "b": 2})
    assert path.read_bytes() == before
    add(path, ["a", "b"], {"a": 3, "b": 4})
    assert [row["b"] for row in rows_of(path)] == ["2", "4"]

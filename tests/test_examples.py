"""The examples run as they say."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
POOLED = ROOT / "examples" / "pooled"


@pytest.mark.parametrize("by_class", [False, True])
def test_the_shares_are_disjoint_and_all_there_is(
    by_class: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By class, everybody lacks some, and together they lack none."""
    monkeypatch.syspath_prepend(str(POOLED))
    from participants import shares

    labels = np.random.default_rng(0).integers(0, 10, 1000)
    parts = shares(labels, by_class=by_class)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    classes = [len(np.unique(labels[part])) for part in parts]
    assert classes == ([6, 7, 7] if by_class else [10, 10, 10])
    assert all(len(part) > 250 for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize("split", [[], ["--by-class"]])
def test_three_participants_teach_one_network(split: list[str], tmp_path: Path) -> None:
    out = tmp_path / "pooled.csv"
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    options = ["--data", "digits", "--epochs", "3", "--copies", "4", "--out", str(out), *split]
    result = subprocess.run(
        [sys.executable, str(POOLED / "run.py"), *options],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["by_class"] is bool(split)
    # A third by class lacks three digits of ten; the pool has them all.
    assert figures["pooled"] > 75
    assert figures["one_holder"] > 75
    assert figures["plain"] > 85
    assert split == [] or figures["plain_third"] < 75
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["pooled"] == str(figures["pooled"])


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_lightning_trains_on_encodings(processes: int, tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "lightning_training.py"), str(processes)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["accuracy"] > 0.5
    # Four images a mix, for twenty epochs without their short last batches.
    assert figures["exposure/least"] < figures["exposure/mean"] < 80 < figures["exposure/most"]

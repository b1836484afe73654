"""The examples run as they say."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instahide.data import open_split
from instahide.data.readers.tables.label_table import LabelTable
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
POOLED = EXAMPLES / "pooled"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def figures(arguments: list[str], **environment: str) -> dict[str, Any]:
    """The last line of what ``python`` prints when it is run with ``arguments``."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


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
    options = ["--data", "digits", "--epochs", "3", "--copies", "4", "--out", str(out), *split]
    found = figures([str(POOLED / "run.py"), *options])
    assert found["by_class"] is bool(split)
    # A third by class lacks three digits of ten; the pool has them all.
    assert found["pooled"] > 75
    assert found["one_holder"] > 75
    assert found["plain"] > 85
    assert split == [] or found["plain_third"] < 75
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["pooled"] == str(found["pooled"])


#: Guessing is right once in ten times; these are right eight to nine times.
LEARNT = 0.6


@pytest.mark.slow
def test_jax_learns_from_encodings() -> None:
    found = figures([str(EXAMPLES / "jax_training.py")], JAX_PLATFORMS="cpu")
    assert found["accuracy"] > LEARNT


@pytest.mark.slow
def test_keras_learns_from_encodings() -> None:
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    found = figures([str(EXAMPLES / "keras_training.py")], **environment)
    assert found["accuracy"] > LEARNT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launch", "processes"),
    [
        ([], 1),
        pytest.param(["-m", "accelerate.commands.launch", "--cpu"], 1, marks=pytest.mark.slow),
        pytest.param(TORCHRUN, 2, marks=pytest.mark.slow),
    ],
)
def test_accelerate_learns_from_encodings(launch: list[str], processes: int) -> None:
    found = figures([*launch, str(EXAMPLES / "accelerate_training.py")])
    assert found["processes"] == processes
    assert found["accuracy"] > LEARNT
    # A loader that had been left plain would have no exposure to tell of.
    assert found["most"] > 8


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--fsdp"]])
def test_a_script_of_ones_own_learns_under_torchrun(options: list[str]) -> None:
    found = figures([*TORCHRUN, str(EXAMPLES / "torchrun_training.py"), *options])
    assert found["processes"] == 2
    assert found["accuracy"] > LEARNT


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_lightning_learns_from_encodings(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = figures([str(EXAMPLES / "lightning_training.py"), str(processes)])
    assert found["accuracy"] > 0.5
    # Four images a mix, for twelve epochs without their short last batches.
    assert found["exposure/least"] < found["exposure/mean"] < 48 < found["exposure/most"]


HOSPITALS = EXAMPLES / "hospitals"


@pytest.mark.slow
def test_scans_of_three_clinics_are_what_the_example_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit depths, sizes, findings; and no patient in both parts."""
    monkeypatch.syspath_prepend(str(HOSPITALS))
    from clinics import CLINICS, write_clinics

    write_clinics(tmp_path)
    found = {}
    for clinic in CLINICS:
        table = LabelTable(
            str(tmp_path / clinic.name / "labels.csv"), label_columns=clinic.findings,
            group_column="patient", split_column="part",
        )  # fmt: skip
        train, test = open_split(tmp_path / clinic.name / "scans", labels=table, progress=False)
        found[clinic.name] = (train.pixels.dtype.name, train.shape[1:], len(train.classes))
        assert train.groups is not None
        assert test.groups is not None
        ours, theirs = ({tuple(row) for row in part.groups.tolist()} for part in (train, test))
        assert (len(train), len(test)) == (25 * len(ours), 25 * len(theirs))
        assert not ours & theirs
        for part in (train, test):
            assert ((part.labels.mean(0) > 0.1) & (part.labels.mean(0) < 0.9)).all()
    assert found == {
        "north": ("uint16", (64, 64), 3),
        "south": ("uint16", (48, 48), 3),
        "west": ("uint8", (32, 32), 2),
    }


@pytest.mark.slow
def test_three_clinics_pool_encodings_of_their_scans() -> None:
    found = figures(
        [str(HOSPITALS / "run.py"), "--copies", "3", "--epochs", "3", "--budget", "20s"]
    )
    # Chance is 0.5; nine passes are few.
    assert all(found[name]["pooled"] > 0.55 for name in ("north", "south", "west"))
    assert "recovered" in " ".join(found["verdict"])


@pytest.mark.slow
def test_three_clinics_train_in_a_federation(tmp_path: Path) -> None:
    found = figures([str(HOSPITALS / "federation.py"), "--folder", str(tmp_path), "--rounds", "2"])
    assert found["task"] == "multi-label"
    assert found["classes"] == ["vessel", "wide vessel", "branching"]
    assert [each["failures"] for each in found["rounds"]] == [[], []]
    assert found["rounds"][-1]["client-macro-auroc"] > 0.55

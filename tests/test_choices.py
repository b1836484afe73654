"""What settings cost in accuracy, time and memory is measured once, and summed up rightly."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from opacus.accountants import RDPAccountant

from experiments import choices, cost
from experiments.choices import Choice
from experiments.records import rows_of
from instahide import Scheme


def test_choices_differ_in_one_thing() -> None:
    assert choices.scheme_of(Choice("k", "3")) == Scheme.inside(3)
    assert choices.scheme_of(Choice("c1", "0.5")) == Scheme.cross(4, c1=0.5)
    assert choices.scheme_of(Choice("once", "cross-4")) == Scheme.cross(4)
    found = list(choices.choices())
    assert len(set(found)) == len(found)
    assert {value for what, value in found if what == "k"} == set("12345678")


def test_every_scheme_can_be_drawn() -> None:
    for choice in choices.choices():
        if choice.what != "dp":
            assert choices.scheme_of(choice).acceptance > 0


def run(monkeypatch: pytest.MonkeyPatch, module: object, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["experiment", *map(str, options)])
    module.main()


# PyTorch's, of hooks that Opacus puts on the first layer.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_choices_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [Choice("k", "2"), Choice("once", "inside-4"), Choice("dp", "2.0")]
    monkeypatch.setattr(choices, "choices", lambda: iter(wanted))
    out = tmp_path / "choices.csv"
    for _ in range(2):
        run(monkeypatch, choices, "--data", "digits", "--epochs", 1, "--out", out)
    rows = rows_of(out)
    assert [(row["what"], row["value"]) for row in rows] == wanted
    assert list(json.loads(capsys.readouterr().out.splitlines()[-1])) == [
        "k 2", "once inside-4", "dp 2.0",
    ]  # fmt: skip
    oracle = RDPAccountant()
    # 1,438 images in batches of 256 on average: 6 steps, each of a sixth of the images.
    oracle.history = [(2.0, 1 / 6, 6)]
    assert float(rows[2]["epsilon"]) == pytest.approx(oracle.get_epsilon(1e-5), abs=1e-3)
    assert rows[0]["epsilon"] == ""


def test_costs_are_compared_with_plain_training() -> None:
    def row(scheme: str, seconds: float) -> dict[str, str]:
        return {"scheme": scheme, "seconds_an_epoch": str(seconds), "peak_mib": "100"}

    rows = [row("plain", 2), row("plain", 4), row("plain", 90), row("cross-4", 5)]
    found = cost.summary(rows)
    assert found["cross-4"] == {"seconds_an_epoch": 5, "peak_mib": 100, "against_plain": 1.25}


@pytest.mark.slow
def test_costs_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "cost.csv"
    options = ("--data", "digits", "--schemes", "plain,inside-2", "--epochs", 1, "--turns", 1)
    for _ in range(2):
        run(monkeypatch, cost, *options, "--out", out)
    rows = rows_of(out)
    assert [row["scheme"] for row in rows] == ["plain", "inside-2"]
    assert all(float(row["seconds_an_epoch"]) > 0 for row in rows)
    assert all(float(row["peak_mib"]) > 50 for row in rows)

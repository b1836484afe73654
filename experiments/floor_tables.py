"""Write the tables of docs/guarantees.md from the CSV files.

python -m experiments.floor_tables
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from experiments import error_floors, floor_accuracy, markdown
from experiments.records import rows_of, with_measured

ROOT = Path(__file__).resolve().parents[1]
ATTACKED, TRAINED = ROOT / error_floors.OUT, ROOT / floor_accuracy.OUT
PAGE = ROOT / "docs" / "guarantees.md"
Rows = Sequence[dict[str, str]]


def attacked(rows: Rows) -> list[str]:
    """Return a table of how near attacks that know everything else come to the floors."""
    heads = [
        "images", "settings", "least squares / unbiased floor", "unbiased floor beaten",
        "best biased estimator / unbiased floor", "the same / floor with a prior",
        "floor with a prior beaten",
    ]  # fmt: skip
    shown = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = error_floors.best_attacked([row for row in rows if row["kind"] == kind])
        beaten = error_floors.beaten(mine)
        shown.append([
            kind, len(mine), _span([float(row["ratio"]) for row in mine]), len(beaten["unbiased"]),
            _span([float(row["best_error"]) / float(row["floor"]) for row in mine]),
            _span([float(row["prior_ratio"]) for row in mine]), len(beaten["prior"]),
        ])  # fmt: skip
    return markdown.table(heads, shown)


def _span(values: Sequence[float]) -> str:
    ends = (f"{end:.2g}" if end < 100 else f"{end:.0f}" for end in (min(values), max(values)))
    return " to ".join(ends)


def costs(rows: Rows) -> list[str]:
    """Return a table of accuracy and floor of each setting."""
    heads = [
        "data", "scheme", "k", "T", "σ", "accuracy in %", "drop from plain training in points",
        "floor in % of the variance, least", "floor, median image", "runs",
    ]  # fmt: skip
    shown = (
        [
            *(found[name] for name in ("data", "scheme", "k", "copies")),
            f"{float(found['noise']):g}",
            *(f"{found[name]:.1f}" for name in ("accuracy", "drop")),
            *(_floor(cast(float, found[name])) for name in ("floor_least", "floor_median")),
            found["seeds"],
        ]
        for found in floor_accuracy.drops(rows)
    )
    return markdown.table(heads, shown, texts=(0, 1))


def _floor(percent: float) -> str:
    return f"{percent:.1f}" if percent else "none"


def goal(rows: Rows) -> list[str]:
    """Return a sentence for each data set on the highest floor at a small drop."""
    lines = []
    found = floor_accuracy.best(rows)
    for data in dict.fromkeys(row["data"] for row in rows):
        if data not in found:
            lines.append(f"- {data}: no setting that was tried drops at most 5 points.")
            continue
        best = found[data]
        lines.append(
            f"- {data}: the highest floor at a drop of at most {floor_accuracy.MOST_DROP:g} points "
            f"is {cast(float, best['floor_least']):.1f} % of the variance, with "
            f"{best['scheme']}, k = {best['k']}, T = {best['copies']} and "
            f"σ = {float(best['noise']):g} (drop: {cast(float, best['drop']):.1f} points)."
        )
    return lines


def rewritten(text: str, attacks: Rows, training: Rows) -> str:
    """Return ``text`` with its measured region updated."""
    parts = [attacked(attacks), costs(training), goal(training)]
    return with_measured(text, markdown.blocks(parts))


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(page, rows_of(ATTACKED), rows_of(TRAINED)), encoding="utf-8")

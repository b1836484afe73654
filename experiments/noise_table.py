"""Write the tables of docs/noise.md from experiments/results/noise.csv.

python -m experiments.noise_table
"""

from __future__ import annotations

from pathlib import Path

from experiments import markdown
from experiments.records import rows_of, with_measured

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "experiments" / "results" / "noise.csv"
PAGE = ROOT / "docs" / "noise.md"


def number(text: str) -> str:
    """Format a number; an empty text stays empty."""
    return f"{float(text):,.3g}" if text and float(text) < 1000 else text and f"{float(text):,.0f}"


def needed(rows: list[dict[str, str]]) -> list[str]:
    """Return a table of the noise needed for a small epsilon, by data set and k."""
    heads = [
        "data", "k", "encodings of each image", "largest sum of squares", "sensitivity",
        "σ for ε = 8", "σ for ε = 1",
    ]  # fmt: skip
    names = ("squares", "sensitivity", "noise_for_8", "noise_for_1")
    shown = (
        [row["data"], row["k"], row["copies"], *(number(row[name]) for name in names)]
        for row in rows
        if float(row["noise"]) == 0
    )
    return markdown.table(heads, shown)


def costs(rows: list[dict[str, str]]) -> list[str]:
    """Return a table with one row for each run."""
    heads = [
        "data", "k", "encodings of each image", "σ", "accuracy in %",
        "share of the largest class in %", "ε (ledger)", "ε (bound before encrypting)",
        "ε (if labels were hidden)",
    ]  # fmt: skip
    shown = []
    for row in rows:
        names = ("epsilon", "epsilon_beforehand", "epsilon_with_labels_hidden")
        promised = [number(row[name]) or "none" for name in names]
        accuracy, largest = (f"{float(row[name]):.1f}" for name in ("accuracy", "largest_class"))
        setting = [row["data"], row["k"], row["copies"], number(row["noise"])]
        shown.append([*setting, accuracy, largest, *promised])
    return markdown.table(heads, shown)


def rewritten(text: str, rows: list[dict[str, str]]) -> str:
    """Return ``text`` with its measured region updated."""
    ordered = sorted(
        rows, key=lambda row: (row["data"], int(row["k"]), int(row["copies"]), float(row["noise"]))
    )
    return with_measured(text, markdown.blocks([needed(ordered), costs(ordered)]))


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(page, rows_of(MEASURED)), encoding="utf-8")

"""Write the tables of docs/encoders.md from experiments/results/encoders.csv.

python -m experiments.encoders_table
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from experiments import markdown
from experiments.encoders import BLOCKS
from experiments.records import rows_of, with_measured

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "experiments" / "results" / "encoders.csv"
PAGE = ROOT / "docs" / "encoders.md"
TITLES = {
    "plain": "no encryption",
    "instahide-4": "InstaHide, cross, k = 4",
    "instahide-6": "InstaHide, cross, k = 6",
    "instahide-inside-4": "InstaHide, inside, k = 4",
    "mixup-4": "Mixup, k = 4",
    "noisy-mixup-4": "Mixup, k = 4, with Gaussian noise",
    "dp-instahide-4": "DP-InstaHide, k = 4",
    "neuracrypt": "NeuraCrypt-style",
    "block-scrambling": "block scrambling",
}
SETS = {"digits": "Digits", "fashion-mnist": "Fashion-MNIST", "photographs": "Color photographs"}

Row = dict[str, str]


def table(rows: list[Row], data: str) -> list[str]:
    """Return a table of the encoders on one set of images, each over all of its seeds."""
    heads = [
        SETS[data], "accuracy in %", "recovered of 100 (by chance)", "encodings linked, AUC",
        "found among 100 known images in %", "distinguished in %", "ε at δ = 0.00001",
        "ms for an encoding", "size",
    ]  # fmt: skip
    shown = []
    for name, title in TITLES.items():
        found = [row for row in rows if (row["data"], row["encoder"]) == (data, name)]
        if found:
            shown.append([title, *cells(found)])
    return markdown.table(heads, shown)


def cells(found: list[Row]) -> list[str]:
    """Return the figures of an encoder; intervals are those of the first seed."""
    one = found[0]
    recovered, chance = (average(found, name) for name in ("recovered", "recovered_by_chance"))
    auc, low, high = (number(one, f"linkage_auc{end}") for end in ("", "_low", "_high"))
    return [
        f"{average(found, 'accuracy'):.1f}",
        f"{recovered:.0f} ({chance:.0f})",
        f"{auc:.2f} ({low:.2f} to {high:.2f})",
        interval(one, "matched"),
        interval(one, "distinguished"),
        f"{number(one, 'epsilon'):,.0f}" if one["epsilon"] else "none",
        f"{average(found, 'encode_milliseconds'):.2g}",
        f"{number(one, 'values_per_value'):g} ×",
    ]


def interval(row: Row, name: str) -> str:
    middle, low, high = (100 * number(row, f"{name}{end}") for end in ("", "_low", "_high"))
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def number(row: Row, column: str) -> float:
    return float(row[column])


def average(rows: list[Row], column: str) -> float:
    return mean(number(row, column) for row in rows)


def rewritten(text: str, rows: list[Row]) -> str:
    """Return ``text`` with its measured region updated."""
    return with_measured(text, markdown.blocks(table(rows, data) for data in BLOCKS))


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(page, rows_of(MEASURED)), encoding="utf-8")

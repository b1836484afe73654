"""Write the table of docs/advise.md from experiments/results/advise_check.csv.

python -m experiments.advise_table
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

from experiments import markdown
from experiments.advise_check import OUT, Target
from experiments.records import rows_of, with_measured

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / OUT
PAGE = ROOT / "docs" / "advise.md"

#: What is shown where nothing is recommended.
VERDICTS = {
    "none": "no setting that was tried meets both",
    "unconfirmed": "none: what met both did not in a second or thorough measurement, or time ended",
}

Row = dict[str, str]


def targets_table(rows: list[Row]) -> list[str]:
    """Return a table of what was advised for each target, and what full runs found."""
    heads = [
        "targets: recovered, drop", "advice", "exposed, in the search",
        "recovered, in the audit", "ceiling, in the audit", "drop in points, in the search",
        "drop, in full training", "seeds", "holds",
    ]  # fmt: skip
    targets = dict.fromkeys(Target(row["max_recovered"], row["max_drop"]) for row in rows)
    shown = []
    for target in targets:
        mine = [row for row in rows if (row["max_recovered"], row["max_drop"]) == target]
        asked = f"≤ {float(target.max_recovered):.0%}, ≤ {target.max_drop}"
        shown.append([asked, *_cells(target, mine)])
    return markdown.table(heads, shown, texts=(0, 1, 8))


def _cells(target: Target, mine: list[Row]) -> list[str]:
    if mine[0]["verdict"] != "recommended":
        return [VERDICTS[mine[0]["verdict"]], *[""] * 7]
    drops, shares = ([float(row[name]) for row in mine] for name in ("drop", "recovered"))
    holds = fmean(drops) <= float(target.max_drop) and fmean(shares) <= float(target.max_recovered)
    return [
        _in_words(mine[0]["settings"]),
        f"{float(mine[0]['advised_exposure']):.0%}",
        _mean_and_ends(shares, "{:.0%}"),
        _mean_and_ends([float(row["ceiling"] or 0) for row in mine], "{:.0%}"),
        f"{float(mine[0]['advised_drop']):.1f}",
        _mean_and_ends(drops, "{:.1f}"),
        str(len(mine)),
        "yes" if holds else "no",
    ]


def _in_words(settings: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in json.loads(settings).items())


def _mean_and_ends(values: list[float], form: str) -> str:
    ends = " to ".join(form.format(end) for end in (min(values), max(values)))
    return f"{form.format(fmean(values))} ({ends})"


def front_size(rows: list[Row]) -> list[str]:
    """Return a sentence on the front of the search for the first targets."""
    return [f"The search found a front of {row['front']} settings." for row in rows[:1]]


def rewritten(text: str, rows: list[Row]) -> str:
    """Return ``text`` with its measured region updated."""
    return with_measured(text, markdown.blocks([front_size(rows), targets_table(rows)]))


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(page, rows_of(MEASURED)), encoding="utf-8")

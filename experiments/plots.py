"""Draw the figures of docs/evidence.md and related pages from the CSV files.

    python -m experiments.plots

Each SVG in ``docs/figures`` stores how many rows of its CSV file it was drawn from, and their hash,
so a test can compare the figure with the file. `drawn` returns these rows, so that a page shows the
same ones while an experiment adds more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments import curves, exposure_chart, frontier_chart, kinds_chart
from experiments.records import rows_of
from experiments.tables import RESULTS, ROOT
from experiments.theory import ksum

FIGURES = ROOT / "docs" / "figures"
#: Text stays text, and the same rows give the same file.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "instahide", "font.size": 13}

Row = dict[str, str]


class Plot(NamedTuple):
    """``draw`` plots the rows of ``results`` on a figure of ``size`` inches."""

    results: str
    size: tuple[float, float]
    draw: Callable[[Figure, list[Row]], None]


PLOTS = {
    "frontier": Plot("frontier.csv", (5, 6), frontier_chart.against_accuracy),
    "encodings": Plot("frontier.csv", (5, 6.5), frontier_chart.against_encodings),
    "accuracy": Plot("accuracy.csv", (5, 7.5), curves.panels),
    "exposure": Plot("exposure.csv", (5, 13), exposure_chart.chart),
    "kinds": Plot("reconstruction_kinds.csv", (5, 6.5), kinds_chart.chart),
    "ksum": Plot("ksum.csv", (5, 4.5), ksum.growth),
}


def stamp(rows: list[Row]) -> dict[str, object]:
    """Return the number and the hash of the rows that a figure is drawn from."""
    text = json.dumps(rows, sort_keys=True)
    return {"rows": len(rows), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def stamp_of(name: str) -> dict[str, object]:
    """Return the stamp stored in the figure ``name``."""
    text = (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    found = re.search(r"<dc:description>(.*?)</dc:description>", text)
    assert found is not None
    stated: dict[str, object] = json.loads(found[1].replace("&quot;", '"'))
    return stated


def drawn(name: str) -> list[Row]:
    """Return the rows that the figure ``name`` was drawn from: the first ones of its file."""
    count = stamp_of(name)["rows"]
    assert isinstance(count, int)
    return rows_of(RESULTS / PLOTS[name].results)[:count]


def save(name: str, rows: list[Row], folder: Path) -> None:
    plot = PLOTS[name]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=plot.size, layout="constrained")
        plot.draw(figure, rows)
        about = {"Date": None, "Description": json.dumps(stamp(rows))}
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.svg", metadata=about)


def main(folder: Path = FIGURES) -> None:
    # Read once each: an experiment may be adding rows.
    files = {plot.results: rows_of(RESULTS / plot.results) for plot in PLOTS.values()}
    for name, plot in PLOTS.items():
        if files[plot.results]:
            save(name, files[plot.results], folder)
            print(f"{name}: {len(files[plot.results])} rows of {plot.results}")


if __name__ == "__main__":
    main()

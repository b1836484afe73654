"""Draw accuracy against epochs.

    python -m experiments.curves

Reads ``experiments/results/accuracy.csv`` and writes ``docs/assets/accuracy.png``. If a scheme has
runs of different lengths, the longest ones are drawn, averaged over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.records import rows_of
from experiments.tables import RESULTS, ROOT, TITLES

PANELS = {"fashion-mnist": "Fashion-MNIST, 60,000 images", "mnist-5k": "MNIST, 4,000 images"}
#: Colours that are told apart without seeing red and green.
COLOURS = ("#1b1f24", "#009e73", "#d55e00", "#0072b2", "#56b4e9", "#cc79a7")
#: Curves begin near chance; what matters happens in the last points.
SHOWN_POINTS = 12


def courses(rows: list[dict[str, str]], data: str) -> dict[str, NDArray[np.float64]]:
    """Return the accuracy after each epoch by scheme, the mean over seeds of the longest runs."""
    found = {}
    for scheme in TITLES:
        mine = [row for row in rows if (row["data"], row["scheme"]) == (data, scheme)]
        longest = max((int(row["epochs"]) for row in mine), default=0)
        runs = [
            [float(value) for value in row["curve"].split()]
            for row in mine
            if int(row["epochs"]) == longest
        ]
        if runs:
            found[scheme] = np.mean(runs, axis=0)
    return found


def draw(axes: Axes, curves: dict[str, NDArray[np.float64]], title: str) -> None:
    best = max(curve.max() for curve in curves.values())
    for (scheme, name), colour in zip(TITLES.items(), COLOURS, strict=True):
        if scheme in curves:
            curve = curves[scheme]
            axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, label=name)
    axes.set(title=title, xlabel="epochs", ylim=(best - SHOWN_POINTS, best + 0.5))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="lower right")


def panels(figure: Figure, rows: list[dict[str, str]], *, columns: int = 1) -> None:
    """Draw one panel for each data set."""
    grid = figure.subplots(len(PANELS) // columns, columns, squeeze=False)
    for axes, (data, title) in zip(grid.flat, PANELS.items(), strict=True):
        draw(axes, courses(rows, data), title)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy on plain test images, %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "assets" / "accuracy.png")
    out = parser.parse_args().out
    rows = rows_of(RESULTS / "accuracy.csv")
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels(figure, rows, columns=2)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main()

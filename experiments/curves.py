"""The chart of accuracy against epochs, drawn by `experiments.plots`.

If a scheme has runs of different lengths, the longest ones are drawn.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments import color_patches
from experiments.chart_style import SCHEMES, Label, direct_labels, finish

PANELS = {
    "fashion-mnist": "Fashion-MNIST, 60,000 images",
    color_patches.NAME: "Color patches, 32,560 images",
    "mnist-5k": "MNIST, 4,000 images",
}
#: Height of a panel in inches.
HEIGHT = 3.75
#: Curves begin near chance; what matters happens in the last points. Least number of them, and
#: points below the end of the lowest curve.
SHOWN_POINTS, BELOW = 8, 4


def courses(rows: list[dict[str, str]], data: str) -> dict[str, NDArray[np.float64]]:
    """Return (seeds, epochs) accuracy after each epoch by scheme, of the longest runs."""
    found = {}
    for scheme in SCHEMES:
        mine = [row for row in rows if (row["data"], row["scheme"]) == (data, scheme)]
        longest = max((int(row["epochs"]) for row in mine), default=0)
        runs = [
            [float(value) for value in row["curve"].split()]
            for row in mine
            if int(row["epochs"]) == longest
        ]
        if runs:
            found[scheme] = np.array(runs)
    return found


def draw(axes: Axes, found: dict[str, NDArray[np.float64]], title: str) -> None:
    """Draw the mean of each scheme over seeds, and the range of the seeds."""
    best = max(runs.max() for runs in found.values())
    lowest = min(runs[:, -1].min() for runs in found.values())
    last = max(runs.shape[1] for runs in found.values())
    for scheme, runs in found.items():
        look, epochs = SCHEMES[scheme], np.arange(1, runs.shape[1] + 1)
        axes.plot(
            epochs, runs.mean(axis=0), look.dashes, color=look.colour, label=look.name, linewidth=2
        )
        axes.fill_between(
            epochs, runs.min(axis=0), runs.max(axis=0), color=look.colour, alpha=0.15, linewidth=0
        )
    axes.set(
        title=title, ylim=(min(best - SHOWN_POINTS, lowest - BELOW), best + 0.5), xlim=(1, last)
    )
    axes.set_ylabel("accuracy, %")
    ends = [Label(s, (runs.shape[1], runs[:, -1].mean())) for s, runs in found.items()]
    direct_labels(axes, ends, 1.06 * last, least=0.1)
    finish(axes)


def panels(figure: Figure, rows: list[dict[str, str]]) -> None:
    """Draw one panel for each data set that was measured."""
    measured = {data: found for data in PANELS if (found := courses(rows, data))}
    figure.set_figheight(HEIGHT * len(measured))
    grid = figure.subplots(len(measured), 1, squeeze=False)[:, 0]
    for axes, (data, found) in zip(grid, measured.items(), strict=True):
        draw(axes, found, PANELS[data])
    grid[-1].set_xlabel("epochs")

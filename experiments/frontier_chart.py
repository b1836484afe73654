"""Charts of the results of `experiments.frontier`, drawn by `experiments.plots`."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from experiments import color_patches
from experiments.chart_style import INK, SCHEMES, finish

DIGITS = "mnist-5k"
TITLES = {DIGITS: "MNIST digits", color_patches.NAME: "Color photographs"}
COLUMNS = 2
#: In the free panel.
KEY = "T: encodings\nof each image\n\n★ plain images\n\ngray: the other\nschemes"

Row = dict[str, str]


class Mean(NamedTuple):
    """Mean and standard deviation over repetitions; one run has no deviation."""

    mean: float
    deviation: float


class Point(NamedTuple):
    """A scheme with ``copies`` encodings of each image."""

    copies: int
    identified: Mean
    ssim: Mean
    accuracy: Mean


def against_accuracy(figure: Figure, rows: list[Row]) -> None:
    """Draw accuracy against the share of identified images, in a panel for each scheme.

    Each data set has panels of its own, below those of the others.
    """
    names = list(dict.fromkeys(row["data"] for row in rows))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * len(names))
    parts = figure.subfigures(len(names), 1, squeeze=False)[:, 0]
    for part, name in zip(parts, names, strict=True):
        found = courses([row for row in rows if row["data"] == name])
        _panels(part, found, TITLES.get(name, name))


def _panels(figure: SubFigure, found: dict[str, list[Point]], title: str) -> None:
    plain = found.pop("plain", [])
    panels = figure.subplots(-(-len(found) // COLUMNS), COLUMNS, sharex=True, sharey=True)
    least = min(point.identified.mean for points in found.values() for point in points)
    figure.suptitle(
        f"{title}: whatever the scheme, the\n"
        f"strongest attack identifies at least {least:.0%} of the images",
        fontsize=13,
    )
    for axes, scheme in zip(panels.flat, found, strict=False):
        for points in found.values():
            _line(axes, points, color="#d0d4d9", linewidth=1)
        _course(axes, scheme, found[scheme])
        for point in plain:
            axes.plot(point.identified.mean, point.accuracy.mean, "*", color=INK, markersize=11)
        axes.set_title(SCHEMES[scheme].name, fontsize=12, pad=4)
        axes.set_xlim(0, 1.06)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.margins(y=0.12)
        finish(axes)
    for axes in panels.flat[len(found) :]:
        axes.set_axis_off()
        axes.text(0.02, 0.5, KEY, transform=axes.transAxes, va="center", fontsize=11, color=INK)
    figure.supxlabel("share of private images that are identified", fontsize=12)
    figure.supylabel("accuracy, %", fontsize=12)


def _course(axes: Axes, scheme: str, points: list[Point]) -> None:
    """Draw the measured points of a scheme, and how many encodings its first and last are from."""
    look = SCHEMES[scheme]
    _line(axes, points, color=look.colour, linewidth=2)
    axes.errorbar(
        [p.identified.mean for p in points], [p.accuracy.mean for p in points],
        [p.accuracy.deviation for p in points], [p.identified.deviation for p in points],
        color=look.colour, marker=look.mark, markersize=6, linestyle="none", capsize=2,
    )  # fmt: skip
    left = min(point.identified.mean for point in points)
    for point in {points[0], points[-1]}:
        axes.annotate(
            f"T = {point.copies}", (left, point.accuracy.mean), (-9, 0),
            textcoords="offset points", ha="right", va="center", fontsize=11,
        )  # fmt: skip


def _line(axes: Axes, points: list[Point], **style: Any) -> None:
    """Join the largest values of so many encodings or fewer: whoever has more can use fewer."""
    found = ([p.identified.mean for p in points], [p.accuracy.mean for p in points])
    axes.plot(*map(np.maximum.accumulate, found), **style)


def against_encodings(figure: Figure, rows: list[Row]) -> None:
    """Draw the share identified and the mean SSIM against the number of encodings, on digits."""
    panels = figure.subplots(2, 1, sharex=True)
    found = courses([row for row in rows if row["data"] == DIGITS])
    for axes, measure, name in zip(
        panels, ("identified", "ssim"), ("images identified", "mean SSIM"), strict=True
    ):
        for scheme, points in found.items():
            look = SCHEMES[scheme]
            values: list[Mean] = [getattr(point, measure) for point in points]
            axes.errorbar(
                [point.copies for point in points], [value.mean for value in values],
                [value.deviation for value in values], color=look.colour, marker=look.mark,
                linestyle=look.dashes, markersize=7, label=look.name, capsize=2,
            )  # fmt: skip
        axes.set(ylim=(0, 1.04), ylabel=name, xscale="log")
        axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        finish(axes)
    panels[1].set_xlabel("encodings of each image, T")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2,
                  frameon=False, fontsize=11)  # fmt: skip


def courses(rows: list[Row]) -> dict[str, list[Point]]:
    """Return the points with soft labels of each scheme, by increasing T."""
    soft = [row for row in rows if row["labels"] == "soft"]
    found = {scheme: list(_points(soft, scheme)) for scheme in SCHEMES}
    return {scheme: points for scheme, points in found.items() if points}


def _points(rows: list[Row], scheme: str) -> Iterator[Point]:
    mine = [row for row in rows if row["scheme"] == scheme]
    for copies in sorted({int(row["copies"]) for row in mine}):
        runs = [row for row in mine if int(row["copies"]) == copies]
        yield Point(copies, *(_mean(runs, name) for name in ("identified", "ssim", "accuracy")))


def _mean(runs: list[Row], column: str) -> Mean:
    values = [float(run[column]) for run in runs]
    return Mean(mean(values), stdev(values) if len(values) > 1 else 0.0)

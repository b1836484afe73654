"""Charts of the results of `experiments.frontier`, drawn by `experiments.plots`."""

from __future__ import annotations

import math
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Look(NamedTuple):
    name: str
    colour: str
    mark: str


#: How each scheme is called, and its colour and mark: told apart without colours, too.
SCHEMES = {
    "plain": Look("plain images", "#1b1f24", "*"),
    "mixup-4": Look("Mixup, k = 4", "#cc79a7", "v"),
    "inside-2": Look("inside, k = 2", "#56b4e9", "s"),
    "inside-4": Look("inside, k = 4", "#0072b2", "D"),
    "cross-4": Look("cross, k = 4", "#d55e00", "o"),
    "cross-6": Look("cross, k = 6", "#009e73", "^"),
}

Row = dict[str, str]
Point = tuple[float, float]


def against_accuracy(figure: Figure, rows: list[Row]) -> None:
    """Draw accuracy against the SSIM of the recovered images, with one line for each scheme."""
    axes = figure.subplots()
    found = courses(rows)
    for scheme, points in found.items():
        xs, ys = ([float(row[name]) for row in points] for name in ("ssim", "accuracy"))
        name, colour, mark = SCHEMES[scheme]
        sizes = [area(scheme, int(row["copies"])) for row in points]
        axes.plot(xs, ys, color=colour, linewidth=1.5, label=name)
        axes.scatter(xs, ys, sizes, color=colour, marker=mark, zorder=3)
        # Where T is smallest, at the end of its line that lies apart from the others.
        beside(axes, scheme, name, (xs[0], ys[0]), (10, -4), side="left")
        if len(points) > 1:
            beside(axes, scheme, points[-1]["copies"], (xs[-1], ys[-1]), (0, 10))
    least = min(float(row["ssim"]) for points in found.values() for row in points)
    # To the right is what one wants, and there must be room for names.
    axes.set(xlim=(1.05, least - 0.2), ylabel="accuracy on plain test images, %")
    axes.set_xlabel("mean SSIM of what the strongest attack recovers\nless recovered →")
    copies = ", ".join(map(str, sorted({int(row["copies"]) for row in rows})))
    axes.set_title(
        f"{sum(map(len, found.values()))} measured points; larger marks:\n"
        f"more encodings of each image ({copies})",
        fontsize=13,
    )
    finish(axes)


def area(scheme: str, copies: int) -> float:
    """Return the area of a mark in square points."""
    return 170 if scheme == "plain" else 14 + 60 * math.log10(copies)


def beside(
    axes: Axes, scheme: str, text: str, at: Point, offset: Point, *, side: str = "center"
) -> None:
    axes.annotate(
        text, at, offset, textcoords="offset points", ha=side, fontsize=11,
        color=SCHEMES[scheme].colour,
    )  # fmt: skip


def against_encodings(figure: Figure, rows: list[Row]) -> None:
    """Draw the share identified and the mean SSIM against the number of encodings."""
    panels = figure.subplots(2, 1, sharex=True)
    for axes, measure, name in zip(
        panels, ("identified", "ssim"), ("images identified", "mean SSIM"), strict=True
    ):
        for scheme, points in courses(rows).items():
            xs, ys = ([float(row[column]) for row in points] for column in ("copies", measure))
            marked(axes, scheme, xs, ys)
        axes.set(ylim=(-0.04, 1.04), ylabel=name, xscale="log")
        axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        finish(axes)
    panels[1].set_xlabel("encodings of each image, T")
    panels[1].legend(frameon=False, fontsize=10, ncols=2)


def courses(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the points with soft labels of each scheme, by increasing T."""
    soft = [row for row in rows if row["labels"] == "soft"]
    found = {scheme: [row for row in soft if row["scheme"] == scheme] for scheme in SCHEMES}
    return {
        scheme: sorted(points, key=lambda row: int(row["copies"]))
        for scheme, points in found.items()
        if points
    }


def marked(axes: Axes, scheme: str, xs: list[float], ys: list[float]) -> None:
    name, colour, mark = SCHEMES[scheme]
    size = 13 if scheme == "plain" else 7
    axes.plot(xs, ys, color=colour, marker=mark, markersize=size, linewidth=1.5, label=name)


def finish(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)

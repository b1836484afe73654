"""The chart of the results of `experiments.exposure`, drawn by `experiments.plots`."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.chart_style import INK, SCHEMES
from experiments.exposure import difference, in_order

BAR, MARK = SCHEMES["inside-4"].colour, SCHEMES["cross-4"].colour
#: Titles of the panels, by the field ``images``.
TITLES = {"photographs": "100 photographs", "digits": "50 digits"}

Row = dict[str, str]


def chart(figure: Figure, rows: list[Row]) -> None:
    """Draw a bar for each setting: the mean SSIM, and the share of correct coefficients."""
    found = {name: [row for row in in_order(rows) if row["images"] == name] for name in TITLES}
    counts = [len(mine) for mine in found.values()]
    panels = figure.subplots(len(found), 1, sharex=True, height_ratios=counts)
    for axes, (name, mine) in zip(panels, found.items(), strict=True):
        _panel(axes, mine)
        axes.set_title(TITLES[name], loc="left", fontsize=13)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", frameon=False, fontsize=11
    )


def _panel(axes: Axes, rows: list[Row]) -> None:
    """Draw the ``rows``, the base setting first; a line continues its SSIM to the others."""
    places, likeness = range(len(rows)), [float(row["ssim"]) for row in rows]
    axes.barh(places, likeness, 0.3, color=BAR, label="mean SSIM of recovered images")
    axes.axvline(likeness[0], color=BAR, linewidth=1, linestyle=":", label="SSIM of base setting")
    axes.plot(
        [float(row["mass"]) for row in rows], places, "D", color=MARK,
        markersize=5, clip_on=False, label="coefficients assigned to the right image",
    )  # fmt: skip
    for place, row in enumerate(rows):
        setting = difference(row).partition(": ")[2]
        axes.text(0.005, place - 0.22, setting, va="bottom", fontsize=11, color=INK)
        axes.text(1.04, place, f"{float(row['ssim']):.2f}", va="center", fontsize=11, color=INK)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.9), yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)

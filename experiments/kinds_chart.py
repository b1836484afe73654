"""The chart of the results of `experiments.reconstruction_kinds`, drawn by `experiments.plots`."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.chart_style import INK, PALE, SCHEMES, finish
from experiments.kinds_tables import TITLES, Cell, hidden

COLOUR = SCHEMES["inside-4"].colour

Row = dict[str, str]


def chart(figure: Figure, rows: list[Row]) -> None:
    """Draw a panel for each kind: the share recovered against the number of encodings."""
    panels = figure.subplots(3, 2, sharex=True, sharey=True)
    found = hidden(rows)
    copies = sorted({cell.copies for cell in found})
    for axes, (kind, title) in zip(panels.flat, TITLES.items(), strict=False):
        _panel(axes, [cell for cell in found if cell.kind == kind])
        axes.set_title(title, fontsize=12, pad=4)
        axes.set(ylim=(0, 1.04), xscale="log", yticks=[0, 0.5, 1])
        axes.set_xticks(copies, [str(number) for number in copies])
        axes.minorticks_off()
        finish(axes)
    figure.supxlabel("encodings of each image, T", fontsize=12)
    figure.supylabel("share of images that are recovered", fontsize=12)
    panels[2, 1].axis("off")
    panels[1, 1].tick_params(labelbottom=True)
    panels[2, 1].legend(*panels[0, 0].get_legend_handles_labels(), loc="center", frameon=False,
                        fontsize=11)  # fmt: skip


def _panel(axes: Axes, found: list[Cell]) -> None:
    """Draw the mean over draws and their range, and the mean of the ceiling as a thin line."""
    copies = [cell.copies for cell in found]
    ceilings = [cell.mean("ceiling_recovered") / cell.images for cell in found]
    axes.plot(copies, ceilings, "--", color=PALE, linewidth=1, label="ceiling")
    shares = [cell.mean("recovered") / cell.images for cell in found]
    ends = [
        (share - min(cell.values("recovered")) / cell.images,
         max(cell.values("recovered")) / cell.images - share)
        for cell, share in zip(found, shares, strict=True)
    ]  # fmt: skip
    axes.errorbar(
        copies, shares, list(zip(*ends, strict=True)), color=COLOUR, marker="o",
        markersize=6, linewidth=2, capsize=2, ecolor=INK, elinewidth=1,
        label="attack, range of draws",
    )  # fmt: skip

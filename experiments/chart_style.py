"""What the charts have in common: the look of each scheme, and labels beside its curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

INK, PALE = "#1b1f24", "#5c6670"


class Look(NamedTuple):
    """How a scheme is drawn. Marks and dashes distinguish schemes without colours, too."""

    name: str
    colour: str
    mark: str
    dashes: str = "-"


#: The colours can be told apart with any form of colour blindness.
SCHEMES = {
    "plain": Look("plain images", INK, "*"),
    "mixup-4": Look("Mixup, k = 4", "#cc79a7", "v", "-."),
    "inside-2": Look("inside, k = 2", "#56b4e9", "s"),
    "inside-4": Look("inside, k = 4", "#0072b2", "D"),
    "cross-4": Look("cross, k = 4", "#d55e00", "o"),
    "cross-6": Look("cross, k = 6", "#009e73", "^", "--"),
    "cross-4-signed": Look("cross, k = 4,\nsigns kept", "#b58900", "P", ":"),
}


class Label(NamedTuple):
    """The text of a scheme, for the point ``at`` in data coordinates."""

    scheme: str
    at: tuple[float, float]


def direct_labels(
    axes: Axes, labels: Sequence[Label], across: float, *, least: float, side: str = "left"
) -> None:
    """Write the name of each scheme at ``across``, joined to its point by a thin line.

    Args:
        axes: with final limits.
        labels: the points.
        across: horizontal position of all names, in data coordinates.
        least: least vertical distance between two names, as a share of the height.
        side: horizontal alignment of the names.
    """
    low, high = axes.get_ylim()
    heights = np.array([label.at[1] for label in labels])
    places = spread(heights, least * (high - low), low, high)
    for (scheme, (x, y)), place in zip(labels, places, strict=True):
        look = SCHEMES[scheme]
        axes.plot(
            [x, across], [y, place], ":", color=look.colour, linewidth=1, clip_on=False,
            label="_leader",
        )  # fmt: skip
        axes.text(across, place, f" {look.name} ", ha=side, va="center", color=INK, fontsize=11)


def spread(
    values: NDArray[np.float64], least: float, low: float, high: float
) -> NDArray[np.float64]:
    """Return positions close to ``values`` (n,), in their order and at least ``least`` apart.

    They lie between ``low`` and ``high`` if there is room for all.
    """
    order = np.argsort(values, kind="stable")
    steps = least * np.arange(len(values))
    # Without their steps, positions need only ascend: each block of descending ones is averaged.
    blocks: list[tuple[float, int]] = []
    for value in values[order] - steps:
        blocks.append((float(value), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (one, many), (other, more) = blocks.pop(), blocks.pop()
            blocks.append(((one * many + other * more) / (many + more), many + more))
    flat = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    placed = np.empty(len(values))
    placed[order] = np.clip(flat, low, max(low, high - steps[-1] if len(values) else high)) + steps
    return placed


def finish(axes: Axes) -> None:
    """Draw a pale grid and only the left and lower axis."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

"""Charts of a figure against the number of encodings, as coordinates for an inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from instahide.audit.report.schema import AttackResult
from instahide.audit.schedule import CURVES

#: Size and margins of the drawing, in its own units; it is scaled to the page.
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 16, 12, 44


@dataclass(frozen=True)
class Line:
    """One attack: ``points`` are (x, y) in the drawing, ``values`` (encodings, SSIM)."""

    name: str
    points: list[tuple[float, float]]
    values: list[tuple[int, float]]

    @property
    def path(self) -> str:
        """The points in the format of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """A chart with several lines; ticks are (position, label)."""

    title: str
    lines: list[Line]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]

    @property
    def spoken(self) -> str:
        """The chart in words, for screen readers."""
        said = [
            f"{line.name}: "
            + ", ".join(f"{value:.2f} at {count} encodings" for count, value in line.values)
            for line in self.lines
        ]
        return f"{self.title}. " + "; ".join(said) + "."


def curve(results: Sequence[AttackResult], figure: str, title: str) -> Chart | None:
    """Return a chart of ``figure`` against encodings per image, by attack; None without curves.

    Args:
        results: results of all attacks; only those on rehearsals are drawn.
        figure: name of a figure in `AttackResult.figures`, from 0 to 1.
        title: title of the chart.
    """
    series = {name: _values(results, name, figure) for name in CURVES}
    series = {name: values for name, values in series.items() if len(values) > 1}
    if not series:
        return None
    counts = sorted({count for values in series.values() for count, _ in values})
    lines = [
        Line(name, [(_x(count, counts), _y(value)) for count, value in values], values)
        for name, values in series.items()
    ]
    across = [(_x(count, counts), str(count)) for count in counts]
    return Chart(title, lines, across, [(_y(tick / 4), f"{tick / 4:g}") for tick in range(5)])


def _values(results: Sequence[AttackResult], name: str, figure: str) -> list[tuple[int, float]]:
    found = {
        result.encodings_per_image: value
        for result in results
        if result.attack == name and result.on == "rehearsal"
        if (value := result.figures.get(figure)) is not None
    }
    return sorted(found.items())


def _x(count: int, counts: Sequence[int]) -> float:
    low, high = math.log(counts[0]), math.log(counts[-1])
    return LEFT + (math.log(count) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - min(1.0, max(0.0, value)) * (HEIGHT - TOP - BOTTOM)

"""A chart of the front, as coordinates for an inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from instahide.audit.advice.schema import Setting, Targets
from instahide.audit.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

#: Ticks of the vertical axis, about.
TICKS = 5


@dataclass(frozen=True)
class Dot:
    """A setting at (x, y); ``title`` is shown when it is pointed at."""

    x: float
    y: float
    title: str
    kind: str


@dataclass(frozen=True)
class FrontChart:
    """Exposure across, points of accuracy lost upward; ticks are (position, label).

    Attributes:
        dots: the settings; ``kind`` is "chosen", "front" or "other".
        path: the steps of the front, as an SVG polyline.
        across: ticks of the exposure.
        up: ticks of the drop.
        target: (x, y) of the corner of what meets both targets.
        spoken: the front in words, for screen readers.
    """

    dots: list[Dot]
    path: str
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    target: tuple[float, float]
    spoken: str


def front_chart(
    settings: Sequence[Setting], targets: Targets, chosen: Setting | None
) -> FrontChart | None:
    """The chart of all settings that were measured to the end; None if there are none.

    Those that are never recommended are left out: they may lie where the targets are met.
    """
    done = [s for s in settings if s.state == "done" and not s.never_recommended]
    if not done:
        return None
    drops = [setting.drop for setting in done]
    step = _step((max(*drops, targets.max_drop) - min(*drops, 0.0)) / TICKS)
    low = math.floor(min(*drops, 0.0) / step) * step
    high = max(low + step, math.ceil(max(*drops, targets.max_drop) / step) * step)

    def place(exposure: float, drop: float) -> tuple[float, float]:
        across = LEFT + exposure * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (drop - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    front = sorted((s for s in done if s.on_front), key=lambda s: s.point)
    comparable = [s for s in front if s.ceiling is not None]
    name = None if chosen is None else chosen.candidate
    kinds = {True: "front", False: "other"}
    dots = [
        Dot(*place(*s.point), f"{s.candidate.name}: {spoken(s)}",
            "chosen" if s.candidate == name else kinds[s.on_front])
        for s in sorted(done, key=lambda s: s.on_front)
    ]  # fmt: skip
    ticks = [low + number * step for number in range(round((high - low) / step) + 1)]
    return FrontChart(
        dots,
        _steps([place(*s.point) for s in comparable]),
        [(place(tick / 4, low)[0], f"{25 * tick}%") for tick in range(5)],
        [(place(0.0, tick)[1], f"{tick:g}") for tick in ticks],
        place(targets.max_recovered, targets.max_drop),
        "; ".join(f"{s.candidate.name}: {spoken(s)}" for s in front),
    )


def spoken(setting: Setting) -> str:
    """Exposure and drop in words."""
    return f"{100 * setting.exposure:.0f}% exposed, {setting.drop:.1f} points lost"


def _step(least: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-3)))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """The boundary of what the front dominates: to the right, then to the next point."""
    corners: list[tuple[float, float]] = []
    for point in points:
        if corners:
            corners.append((point[0], corners[-1][1]))
        corners.append(point)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)

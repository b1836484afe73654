"""The Pareto front of accuracy and privacy: what no other setting beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """What is to be small.

    Attributes:
        exposure: share of the private images that are recovered, from 0 to 1.
        drop: points of accuracy lost against plain training.
    """

    exposure: float
    drop: float


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Places of the ``points`` that no other dominates, those of low exposure first.

    Equal points are on the front together.

    Examples:
        >>> from instahide.audit.advice.front import Point, pareto_front
        >>> pareto_front([Point(0.5, 1.0), Point(0.1, 4.0), Point(0.5, 3.0)])
        [1, 0]
    """
    found: list[int] = []
    best = float("inf")
    for place in sorted(range(len(points)), key=lambda place: points[place]):
        point = points[place]
        if point.drop < best or (found and point == points[found[-1]]):
            best = point.drop
            found.append(place)
    return found

"""The front is what brute force finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instahide.audit.advice.front import Point, pareto_front

#: Few values, so that points coincide.
POINTS = st.lists(
    st.builds(Point, st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(-2, 6).map(float)),
    max_size=30,
)


@given(POINTS)
def test_a_point_is_on_the_front_if_no_other_dominates_it(points: list[Point]) -> None:
    wanted = {
        place
        for place, point in enumerate(points)
        if not any(
            other.exposure <= point.exposure and other.drop <= point.drop and other != point
            for other in points
        )
    }
    found = pareto_front(points)
    assert set(found) == wanted
    assert len(found) == len(wanted)
    exposures = [points[place].exposure for place in found]
    assert exposures == sorted(exposures)

"""Schemes: the presets are the paper's, and what cannot be met says what to change."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide.encryption.scheme import (
    LEAST_ACCEPTANCE,
    LEAST_NOISE,
    MOST_IMAGES,
    MOST_NOISE,
    Scheme,
)
from instahide.errors import InstaHideError

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = (
    "k",
    "private_k",
    "c1",
    "c2",
    "min_self_coefficient",
    "mask",
    "label_mode",
    "coefficient_distribution",
    "noise",
)


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    k = draw(st.integers(2, 8))
    return Scheme(
        k=k,
        private_k=draw(st.integers(1, k)),
        c1=draw(st.floats(0.6, 1)),
        c2=draw(st.floats(0, 0.1)),
        mask=draw(st.booleans()),
        label_mode=draw(st.sampled_from(["soft", "renormalised"])),
        coefficient_distribution=draw(st.sampled_from(["half-normal", "dirichlet"])),
        noise=draw(st.just(0.0) | st.floats(LEAST_NOISE, MOST_NOISE)),
    )


def test_presets() -> None:
    inside, cross, mixup, plain = Scheme.inside(4), Scheme.cross(6), Scheme.mixup(4), Scheme.plain()
    assert (inside.k, inside.private_k, inside.public_k, inside.c1) == (4, 4, 0, 0.65)
    assert (cross.k, cross.private_k, cross.public_k) == (6, 2, 4)
    assert (cross.c1, cross.c2) == (0.65, 0.3)
    assert inside.mask
    assert cross.mask
    assert not mixup.mask
    assert (mixup.private_k, mixup.c1, mixup.c2) == (4, inside.c1, inside.c2)
    assert (plain.k, plain.private_k, plain.c1, plain.mask) == (1, 1, 1.0, False)
    assert {scheme.label_mode for scheme in (inside, cross, mixup)} == {"soft"}
    assert {scheme.coefficient_distribution for scheme in (inside, cross, mixup)} == {"half-normal"}


def test_a_preset_takes_changes() -> None:
    assert Scheme.cross(4, private_k=3).public_k == 1
    assert Scheme.inside(4, coefficient_distribution="dirichlet", c1=0.5).c1 == 0.5
    assert Scheme.inside(1).c1 == 1
    assert Scheme.mixup(4, mask=True) == Scheme.inside(4)


@pytest.mark.parametrize("k", [2, 3, 4, 6, 8, 20])
def test_presets_exist_for_every_usual_k(k: int) -> None:
    assert Scheme.inside(k).acceptance > 0.3
    assert Scheme.cross(k, c2=0.1).k == k


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"k": 0}, "k = 0: a mix holds at least one image", "Use k = 4 or more"),
        ({"k": -3}, "k = -3", "Use k = 4"),
        ({"k": MOST_IMAGES + 1}, f"k = {MOST_IMAGES + 1} is too many", "Use k = 4 or 6"),
        ({"k": 10**12, "private_k": 10**12}, "is too many", "Use k = 4 or 6"),
        ({"private_k": 0}, "private_k = 0 does not fit k = 4", "from 1 to 4 private images"),
        ({"private_k": 5}, "private_k = 5 does not fit k = 4", "from 1 to 4 private images"),
        ({"c1": 0.2}, "c1 = 0.2 cannot be met", "Raise c1 above 1/k = 0.250"),
        ({"c1": 0.25}, "c1 = 0.25 cannot be met", "Raise c1 above 1/k = 0.250"),
        ({"c1": float("nan")}, "c1 = nan cannot be met", "Raise c1"),
        ({"k": 1, "private_k": 1}, "c1 = 0.65 cannot be met", "Use c1 = 1 for k = 1"),
        ({"c1": 1.1}, "c1 = 1.1 is above 1", "at most 1"),
        ({"c1": float("inf")}, "c1 = inf is above 1", "at most 1"),
        ({"c2": 1.5}, "c2 = 1.5: a sum of coefficients", "Use c2 = 0.3, or 0"),
        ({"c2": -0.1}, "c2 = -0.1: a sum", "Use c2 = 0.3, or 0"),
        ({"c2": float("nan")}, "c2 = nan: a sum", "Use c2 = 0.3, or 0"),
        (
            {"c1": 0.3, "c2": 0.7},
            "c2 = 0.7 is out of reach: 2 private coefficients of at most c1 = 0.3 sum to no more "
            "than 0.600",
            "Lower c2, raise c1, or mix more private images",
        ),
        ({"label_mode": "hard"}, "label_mode = 'hard' is not a label mode", "soft, renormalised"),
        (
            {"label_mode": ["soft"]},
            "label_mode = ['soft'] is not a label mode",
            "soft, renormalised",
        ),
        (
            {"coefficient_distribution": "uniform"},
            "'uniform' is unknown",
            "half-normal, dirichlet",
        ),
        ({"coefficient_distribution": {}}, "= {} is unknown", "half-normal, dirichlet"),
        ({"c1": 0.26}, "Fewer than 1 in 1000 draws meet c1 = 0.26", "Raise c1, or lower c2"),
        ({"private_k": 1, "c2": 0.649999}, "Fewer than 1 in 1000 draws", "Raise c1, or lower c2"),
        ({"k": 4.0}, "k = 4.0 is not int", "Give k as a int"),
        ({"k": True}, "k = True is not int", "Give k as a int"),
        ({"k": "4"}, "k = '4' is not int", "Give k as a int"),
        ({"private_k": None}, "private_k = None is not int", "Give private_k as a int"),
        ({"c1": "0.65"}, "c1 = '0.65' is not int or float", "Give c1 as a float"),
        ({"c2": False}, "c2 = False is not int or float", "Give c2 as a float"),
        *(
            ({"noise": noise}, f"noise = {noise} is out of range", "from 1e-06 to 1,000,000")
            for noise in (-1.0, 1e-300, 0.9e-6, 1.1e6, 1e300, math.inf, math.nan)
        ),
        ({"mask": 1}, "mask = 1 is not bool", "Give mask as a bool"),
    ],
)
def test_what_cannot_be_met_says_what_to_change(
    changes: dict[str, Any], problem: str, remedy: str
) -> None:
    with pytest.raises(InstaHideError) as caught:
        Scheme(**changes)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("law", ["half-normal", "dirichlet"])
def test_refused_bounds_are_refused_by_what_is_simulated(law: Any) -> None:
    # A scheme on either side of the limit: the share of draws decides, and nothing else.
    assert (
        Scheme(k=4, private_k=4, c1=0.4, c2=0, coefficient_distribution=law).acceptance
        > LEAST_ACCEPTANCE
    )
    with pytest.raises(InstaHideError, match="Fewer than 1 in 1000"):
        Scheme(k=4, private_k=4, c1=0.2501, c2=0, coefficient_distribution=law)


@given(schemes())
@settings(max_examples=30, deadline=None)
def test_json_round_trip(scheme: Scheme) -> None:
    text = scheme.to_json()
    assert Scheme.from_json(text) == scheme
    assert set(json.loads(text)) == set(FIELDS)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "3", "-1.5", "true", '"k"', '"abc"', "[]", "[1]", "[[]]", '["k"]',
        "[" * 100_000, '{"k":' * 100_000, '{"k": ' + "1" * 5_000 + "}", "\ud800", '{"": 1}',
        '{"k": 4, "key": "00"}', '{"k": {}}', '{"k": 1e400}', '{"k": 100000000, "private_k": 2}',
        '{"k": 1' + "0" * 400 + "}", '{"c1": -1' + "0" * 400 + "}",
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_hostile_json_is_refused(text: str) -> None:
    with pytest.raises(InstaHideError) as caught:
        Scheme.from_json(text)
    assert caught.value.remedy


@pytest.mark.slow
@given(ANY_JSON | st.dictionaries(st.sampled_from(FIELDS), ANY_JSON))
@settings(max_examples=150, deadline=None)
def test_any_json_is_a_scheme_or_refused(value: Any) -> None:
    try:
        scheme = Scheme.from_json(json.dumps(value))
    except InstaHideError:
        return
    assert 1 <= scheme.private_k <= scheme.k <= MOST_IMAGES


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InstaHideError, match="fields") as caught:
        Scheme.from_json('{"k": 4, "seed": 1}')
    assert all(name in caught.value.remedy for name in FIELDS)


def test_a_query_is_mixed_as_in_training_under_at_least_its_coefficient() -> None:
    query = Scheme.cross(6, label_mode="renormalised", coefficient_distribution="dirichlet").query(
        0.5
    )
    assert (query.private_k, query.public_k, query.min_self_coefficient, query.c1) == (
        1,
        5,
        0.5,
        0.65,
    )
    assert (query.label_mode, query.coefficient_distribution, query.mask) == (
        "renormalised",
        "dirichlet",
        True,
    )
    inside = Scheme.inside(4).query(0.5)
    assert (inside.private_k, inside.public_k, inside.min_self_coefficient, inside.c1) == (
        4,
        0,
        0.5,
        0.65,
    )
    # A training bound below the query's coefficient is no obstacle.
    assert Scheme.cross(4, c1=0.4).query(0.5).c1 == 0.65
    assert Scheme.cross(4, c1=0.9).query(0.7).c1 == 0.9
    with pytest.raises(InstaHideError, match="out of reach"):
        Scheme.cross(4).query(0.7)
    with pytest.raises(InstaHideError, match="out of reach"):
        Scheme.cross(4).query(1.5)


@pytest.mark.parametrize("c1", [0.3, 0.4, 0.6, 0.7])
def test_bounds_hold_for_real_numbers_not_for_their_float32(c1: float) -> None:
    # float32 rounds some of these bounds up; a coefficient at the rounded bound is beyond it.
    scheme = Scheme.inside(4, c1=c1)
    at_bound = np.array([[c1, 0.25, 0.25, 0]], np.float32)
    assert scheme.meets_bounds(at_bound).tolist() == [float(np.float32(c1)) <= c1]


def test_meets_bounds_is_the_definition() -> None:
    scheme = Scheme.cross(4)
    rows = np.array([[0.2, 0.2, 0.3, 0.3], [0.66, 0, 0.2, 0.14], [0.1, 0.1, 0.4, 0.4]])
    assert scheme.meets_bounds(rows).tolist() == [True, False, False]
    # All are private: their sum is 1, whatever rounding says.
    everything = Scheme.inside(4, c2=1.0)
    assert everything.meets_bounds(np.array([[0.2, 0.2, 0.3, 0.2999]], np.float32)).all()


def test_a_preset_by_name_is_the_preset() -> None:
    assert Scheme.preset("inside", 3, c1=None) == Scheme.inside(3)
    assert Scheme.preset("cross", 6, c2=0.2, noise=1.0) == Scheme.cross(6, c2=0.2, noise=1.0)
    assert Scheme.preset("mixup", 4, label_mode="renormalised").label_mode == "renormalised"
    assert Scheme.preset("plain", 4, c1=0.2, noise=2.0) == Scheme.plain(noise=2.0)
    with pytest.raises(InstaHideError, match="unknown"):
        Scheme.preset("nonsense")  # type: ignore[arg-type]

"""Hardness against cases that can be counted, and words that nobody can take for a guarantee."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from typer.testing import CliRunner

from instahide.audit.hardness import CAVEAT, Setting, figures, hours, log2_choices, report
from instahide.cli.hardness import duration
from instahide.cli.main import app
from instahide.errors import InstaHideError


def by_name(setting: Setting) -> dict[str, float]:
    return {figure.name: 2**figure.log2 for figure in figures(setting)}


@pytest.mark.parametrize(("n", "k"), [(5, 2), (8, 4), (9, 9), (6, 1)])
def test_brute_force_is_the_number_of_mixes(n: int, k: int) -> None:
    counted = sum(1 for _ in itertools.combinations(range(n), k))
    assert by_name(Setting(n, k, 1, private_k=1))["brute force"] == pytest.approx(counted)


def test_formulas_at_sizes_worked_out_by_hand() -> None:
    found = by_name(Setting(images=10_000, k=6, private=100, private_k=2))
    assert found["meeting in the middle"] == pytest.approx(1e12)
    assert found["phase retrieval and sparse factorisation"] == pytest.approx(100 ** (4 / 3))
    assert found["recovering all images from pairs"] == pytest.approx(100 * math.log(100))
    assert found["search for one image at a time, in squares"] == pytest.approx(10_000 * 3072)
    # An odd k has a larger half.
    assert by_name(Setting(100, 5, 10))["meeting in the middle"] == pytest.approx(1e6)


def test_pairs_have_a_line_of_their_own_only_where_there_are_pairs() -> None:
    assert "recovering all images from pairs" not in by_name(Setting(100, 4, 100, private_k=4))


def test_choices_of_numbers_beyond_a_float() -> None:
    assert log2_choices(1_000_000, 500) == pytest.approx(math.log2(math.comb(1_000_000, 500)))


def test_time_and_cost() -> None:
    assert hours(math.log2(3600e9), math.log2(1e9)) == pytest.approx(1)
    rows = report(Setting(10_000, 4, 100), rate=1e8, price=2).figures
    middle = next(row for row in rows if row.name == "meeting in the middle")
    assert middle.core_hours == pytest.approx(1 / 3600)
    assert middle.dollars == pytest.approx(2 / 3600)
    assert all(row.core_hours is None for row in rows if not row.steps)


def test_every_figure_has_its_source_and_what_it_assumes() -> None:
    for figure in figures(Setting(1000, 4, 100)):
        assert figure.source
        assert figure.assumes
        assert figure.formula


@pytest.mark.parametrize(
    "setting",
    [
        (3, 4, 1, 2),
        (10, 4, 0, 2),
        (10, 4, 5, 5),
        (10, 4, 5, 0),
        (0, 0, 1, 0),
        # Fewer private images than in a mix, or more than images.
        (10, 4, 3, 4),
        (5, 4, 6, 2),
    ],
)
def test_numbers_that_fit_no_scheme_are_refused(setting: tuple[int, int, int, int]) -> None:
    with pytest.raises(InstaHideError):
        Setting(*setting)


@pytest.mark.parametrize(
    ("rate", "price"),
    [(0, 1), (-1, 1), (math.nan, 1), (math.inf, 1), (1, -1), (1, math.nan), (1, math.inf)],
)
def test_a_rate_is_positive_and_a_price_no_gift(rate: float, price: float) -> None:
    with pytest.raises(InstaHideError, match="rate="):
        report(Setting(10, 4, 5), rate=rate, price=price)


def test_a_cost_beyond_a_float_is_none() -> None:
    rows = report(Setting(10**9, 60, 10), rate=1e9, price=1e300).figures
    assert any(row.dollars is None and row.core_hours is not None for row in rows)
    assert all(row.dollars is None or math.isfinite(row.dollars) for row in rows)


def test_the_command_promises_nothing() -> None:
    result = CliRunner().invoke(app, ["hardness", "--images", "10000", "--k", "4"])
    assert result.exit_code == 0
    flat = " ".join(result.stdout.split())
    assert CAVEAT in flat
    assert "secure" not in flat
    assert "assumption" in flat


def test_the_command_speaks_json_even_of_numbers_beyond_a_float() -> None:
    options = ["hardness", "--images", "100000000", "--k", "100", "--json"]
    result = CliRunner().invoke(app, options)
    values = json.loads(result.stdout)
    assert values["caveat"] == CAVEAT
    assert values["setting"]["images"] == 100_000_000
    assert CliRunner().invoke(app, options[:-1]).exit_code == 0


@pytest.mark.parametrize(
    ("span", "text"),
    [(None, "beyond counting"), (1 / 3600, "1 seconds"), (30, "1.2 days"), (1e12, "1.1e+08 years")],
)
def test_times_are_spelt(span: float | None, text: str) -> None:
    assert duration(span) == text

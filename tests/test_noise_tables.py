"""The page on noise shows what was measured, and an experiment measures it."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import noise, noise_table
from experiments.records import END, START, rows_of
from instahide.encryption.privacy import DELTA, epsilon_of
from instahide.encryption.scheme import Scheme


def test_the_page_shows_what_was_measured() -> None:
    page = noise_table.PAGE.read_text(encoding="utf-8")
    rows = rows_of(noise_table.MEASURED)
    assert rows
    assert noise_table.rewritten(page, rows) == page


def test_a_shift_and_its_epsilon_belong_together() -> None:
    for epsilon in (0.5, 1.0, 8.0):
        assert epsilon_of(noise.shift_for(epsilon) ** 2, DELTA) == pytest.approx(epsilon, rel=1e-6)


def test_what_is_measured_is_kept_and_shown(tmp_path: Path) -> None:
    scheme = Scheme.inside(2, noise=5.0)
    facts = noise.measure("digits", scheme, copies=1, epochs=1, seed=0)
    figures = {name: float(str(facts[name])) for name in facts}
    assert figures["epsilon"] <= figures["epsilon_beforehand"]
    # The noise for an epsilon, put into the formula of that run, gives it back.
    shift = figures["sensitivity"] * figures["squares"] ** 0.5 / figures["noise_for_8"]
    assert epsilon_of(shift**2, DELTA) == pytest.approx(8, rel=1e-3)
    setting = dict(zip(noise.SETTING, ("digits", "2", "1", "5.0", "1", "0"), strict=True))
    row = {**setting, **{name: str(value) for name, value in facts.items()}}
    page = noise_table.rewritten(f"{START}{END}", [row])
    assert f"| digits | 2 | 1 | 5 | {figures['accuracy']:.1f} |" in page

"""The page on advice shows what full runs found."""

from __future__ import annotations

from experiments import advise_table
from experiments.records import END, START, rows_of


def row(**changes: str) -> dict[str, str]:
    return {
        "max_recovered": "0.05", "max_drop": "40", "verdict": "recommended", "front": "13",
        "settings": '{"scheme": "inside", "k": 4}', "drop": "30.0", "recovered": "0.04",
        "ceiling": "0.02", "advised_exposure": "0.03", "advised_drop": "35.0", **changes,
    }  # fmt: skip


def shown(*rows: dict[str, str]) -> str:
    return advise_table.rewritten(f"{START}{END}", list(rows))


def test_the_page_shows_what_was_measured() -> None:
    page = advise_table.PAGE.read_text(encoding="utf-8")
    rows = rows_of(advise_table.MEASURED)
    assert rows
    assert advise_table.rewritten(page, rows) == page


def test_an_answer_holds_if_both_means_are_within_the_targets() -> None:
    within = shown(row(recovered="0.02"), row(recovered="0.06", drop="44.0"))
    assert "a front of 13 settings" in within
    assert "| ≤ 5%, ≤ 40 | scheme inside, k 4 | 3% | 4% (2% to 6%) |" in within
    assert "| 37.0 (30.0 to 44.0) | 2 | yes |" in within
    assert "| no |" in shown(row(recovered="0.051"))
    assert "| no |" in shown(row(drop="40.1"))


def test_targets_that_nothing_meets_are_shown() -> None:
    assert "no setting that was tried meets both" in shown(row(verdict="none", settings=""))
    assert "none: what met both" in shown(row(verdict="unconfirmed", settings=""))

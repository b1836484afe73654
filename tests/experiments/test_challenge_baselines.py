"""The baselines of the official challenges: the page shows what was measured, of these sets."""

from __future__ import annotations

from pathlib import Path

from experiments import challenge_baselines
from experiments.records import add
from instahide.audit.challenge.practice import OFFICIAL


def test_the_page_shows_what_was_measured() -> None:
    page = challenge_baselines.PAGE.read_text(encoding="utf-8")
    assert challenge_baselines.rewritten(page) == page


def test_an_attack_that_did_not_run_has_a_dash_and_scores_of_another_set_are_left_out(
    tmp_path: Path,
) -> None:
    row = {"challenge": OFFICIAL["mnist-k4"].sha256, "attack": "reconstruction"}
    figures = {"max_ssim": "0.7249", "images_recovered": "94"}
    unknown = dict.fromkeys(figures, "")
    board = tmp_path / "mnist-k4.csv"
    add(board, [*row, *figures], row | figures, row | unknown | {"attack": "carlini"})
    other = row | figures | {"challenge": "0" * 64, "attack": "averaging"}
    add(board, [*row, *figures], other)
    lines = challenge_baselines.table(tmp_path)
    assert len(lines) == 2 + len(OFFICIAL)
    assert lines[3] == "| `mnist-k4` | – | 0.72 / 94 | – | – | – | – |"

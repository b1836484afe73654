"""The reconstruction of several kinds of images: its victims, its rows and its tables."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import (
    kinds_chart,
    kinds_tables,
    reconstruction_kinds,
    settings_tables,
    victims,
)
from experiments.records import rows_of

Row = dict[str, str]


def test_a_stamp_is_pasted_in_the_middle_of_its_background() -> None:
    stamp = np.zeros((60, 40, 4), np.uint8)
    stamp[20:50, 10:30] = (0, 0, 255, 255)  # red, in OpenCV's order of channels
    picture = victims.pasted(stamp, np.array([200, 210, 220]))
    assert picture.shape == (32, 32, 3)
    assert picture[16, 16].tolist() == [255, 0, 0]
    assert picture[0, 0].tolist() == picture[31, 16].tolist() == [200, 210, 220]
    red = np.nonzero(picture[:, :, 1] == 0)
    assert (int(red[0].min()), int(red[0].max())) == (3, 27)
    assert np.ptp(red[1]) < np.ptp(red[0])


@pytest.mark.slow
def test_medical_images_are_all_different_in_each_draw_and_gray_ones_have_equal_channels() -> None:
    pytest.importorskip("nibabel")
    first, second = (victims.private_images("medical", draw, 20) for draw in (1, 2))
    assert first.shape == (3, 32, 32)
    assert len(np.unique(first.pixels.reshape(20, -1), axis=0)) == 20
    assert not np.array_equal(first.pixels, second.pixels)
    equal = (first.pixels == first.pixels[:, :1]).all(axis=(1, 2, 3))
    assert 10 < equal.sum() < 20


def test_every_draw_is_complete_before_the_next_one_and_no_run_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = dict.fromkeys(reconstruction_kinds.MEASURES, 0.5)
    done: list[reconstruction_kinds.Run] = []

    def measure(run: reconstruction_kinds.Run, work: Path) -> dict[str, float]:
        done.append(run)
        return figures

    monkeypatch.setattr(reconstruction_kinds, "measure", measure)
    out = tmp_path / "kinds.csv"
    command = ["kinds", "--kinds", "objects,medical", "--copies", "50,5", "--out", str(out)]
    for draws in ("2", "3"):
        monkeypatch.setattr(sys, "argv", [*command, "--draws", draws])
        reconstruction_kinds.main()
    assert [run.draw for run in done] == [1] * 4 + [2] * 4 + [3] * 4
    assert len(set(done)) == len(rows_of(out)) == 12


def row(kind: str, copies: int, recovered: float, draw: int = 1, **figures: object) -> Row:
    key = {"kind": kind, "images": 100, "copies": copies, "labels": "none", "draw": draw}
    measures = dict.fromkeys(reconstruction_kinds.MEASURES, 0.5)
    measures |= {"recovered": recovered, "ceiling_recovered": 99.0, "cpu_seconds": 60.0}
    return {name: str(value) for name, value in (key | measures | figures).items()}


ROWS = [
    row("photographs", 50, 99, claimed=80, claimed_rightly=1), row("objects", 50, 90),
    row("photographs", 50, 97, 2, claimed=90, claimed_rightly=0.9, cpu_seconds=80.0),
    row("objects", 10, 40), row("photographs", 10, 60),
    row("photographs", 50, 930, images=1000), row("objects", 50, 100, labels="soft"),
]  # fmt: skip


def test_a_table_shows_the_mean_of_all_draws_and_the_ceiling() -> None:
    lines = kinds_tables.recovered(ROWS)
    assert lines[0] == "| recovered / ceiling, of 100 images | T = 50 | T = 10 |"
    assert lines[2:4] == [
        "| photographs | 98 / 99 | 60 / 99 |",
        "| objects on white | 90 / 99 | 40 / 99 |",
    ]
    assert lines[-1] == "| crops of text | – | – |"


def test_the_table_of_details_has_a_row_for_each_setting() -> None:
    lines = kinds_tables.details(ROWS)
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| photographs", "| photographs", "| objects on white", "| objects on white",
        "| objects on white, soft labels",
    ]  # fmt: skip
    # The range of a figure is shown where its draws differ.
    assert lines[2] == "| photographs | 50 | 2 | 98 (97 to 99) | 0 | 0.50 | 0.50 | 0.500 | 70 | 0 |"


def test_the_table_of_confidence_counts_claims_over_all_draws() -> None:
    rows = [ROWS[0] | {"expected": "88"}, ROWS[2] | {"expected": "91"}]
    (line,) = kinds_tables.confidence(rows)[2:]
    # 161 of 170 claims are right, and 196 images were recovered.
    assert line == "| photographs | 50 | 2 | 98 | 90 | 85 | 95% | 82% |"


def test_confidence_is_also_shown_over_all_kinds_of_images() -> None:
    rows = [ROWS[0], ROWS[1] | {"claimed": "60", "claimed_rightly": "0.5"}, ROWS[4], ROWS[6]]
    lines = kinds_tables.confidence_by_copies([row | {"expected": "88"} for row in rows])
    # Of 140 claims 110 are right; labels are not mixed with those that are hidden.
    assert lines[2] == "| 50 | 2 | 94 | 88 | 70 | 79% | 58% |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 50", "| 10"]


def test_larger_runs_have_a_table_of_their_own_if_there_are_any() -> None:
    assert kinds_tables.many(ROWS)[2].startswith("| 1,000 | 50 | 930 | 99 |")
    assert kinds_tables.many(ROWS[:5]) == []
    unknown = dict.fromkeys(("claimed", "claimed_rightly", "cpu_seconds", "peak_mib"), "")
    without = kinds_tables.many([row("photographs", 10, 7278, images=10_000) | unknown])
    assert without[2] == "| 10,000 | 10 | 7,278 | 99 | 0.50 | 0.500 | – | – | – | – |"


def test_the_headline_has_the_worst_and_the_best_kind() -> None:
    assert kinds_tables.extremes(ROWS, 50) == (
        "90 of 100 objects on white", "98 of 100 photographs",
    )  # fmt: skip
    assert kinds_tables.extremes(ROWS, 10)[0] == "40 of 100 objects on white"
    assert kinds_tables.seconds(ROWS, 50) == 70


def test_the_chart_has_a_panel_for_each_kind_with_its_ceiling() -> None:
    figure = Figure()
    kinds_chart.chart(figure, ROWS)
    first, *_ = figure.axes
    # The last panel has the legend.
    assert [axes.get_title() for axes in figure.axes] == [*kinds_tables.TITLES.values(), ""]
    ceiling, attack = (line.get_xydata().tolist() for line in first.lines[:2])
    assert ceiling == [[50, 0.99], [10, 0.99]]
    assert attack == [[50, 0.98], [10, 0.6]]


def test_settings_show_the_better_of_both_experiments_on_photographs() -> None:
    better, worse = (row("photographs", 20, 90, ssim=ssim, above_half=91) for ssim in (0.9, 0.8))
    found = settings_tables.photographs([better, worse, row("objects", 20, 80)])
    assert len(found) == 2
    (line,) = settings_tables.reconstruction_table(found)[2:]
    assert line.startswith("| photographs, cross | 6 | 2 | hidden | 100 | 20 | 91 | ")
    assert "| 0.90 |" in line

"""Figures show what the files of measurements hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments import frontier_chart, plots
from experiments.records import rows_of
from experiments.tables import RESULTS

ROWS = [
    {"scheme": scheme, "copies": copies, "labels": labels, "accuracy": accuracy,
     "identified": "0.5", "ssim": ssim}
    for scheme, copies, labels, accuracy, ssim in (
        ("plain", "1", "soft", "98.5", "1.0"),
        ("cross-4", "10", "soft", "97.0", "0.7"),
        ("cross-4", "2", "soft", "95.0", "0.4"),
        ("cross-4", "2", "hidden", "95.0", "0.3"),
    )
]  # fmt: skip
DRAWN = [name for name in plots.PLOTS if (plots.FIGURES / f"{name}.svg").exists()]


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_was_drawn_from_the_rows_of_its_file(name: str) -> None:
    assert plots.stamp(plots.drawn(name)) == plots.stamp_of(name)


def test_the_figure_of_accuracy_leaves_no_row_out() -> None:
    assert plots.stamp_of("accuracy") == plots.stamp(rows_of(RESULTS / "accuracy.csv"))


def test_any_other_row_changes_what_a_figure_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "FIGURES", tmp_path)
    plots.save("frontier", ROWS, tmp_path)
    assert plots.stamp_of("frontier") == plots.stamp(ROWS)
    other = [*ROWS[:-1], {**ROWS[-1], "ssim": "0.31"}]
    for rows in (other, ROWS[:-1]):
        assert plots.stamp(rows) != plots.stamp_of("frontier")


def test_the_same_rows_give_the_same_file(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        plots.save("frontier", ROWS, tmp_path / folder)
    one, two = ((tmp_path / name / "frontier.svg").read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_frontier_has_a_line_a_scheme_along_the_number_of_encodings() -> None:
    figure = Figure()
    frontier_chart.against_accuracy(figure, ROWS)
    axes = figure.axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"plain images": [[1.0, 98.5]], "cross, k = 4": [[0.4, 95.0], [0.7, 97.0]]}
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["plain images", "cross, k = 4", "10"]
    assert axes.get_title().startswith("3 measured points")
    _, marks = axes.collections
    assert marks.get_offsets().tolist() == lines["cross, k = 4"]
    few, many = marks.get_sizes()
    assert few < many


def test_curves_go_along_the_number_of_encodings() -> None:
    figure = Figure()
    frontier_chart.against_encodings(figure, ROWS)
    identified, ssim = ([line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes)
    assert identified == [[[1.0, 0.5]], [[2.0, 0.5], [10.0, 0.5]]]
    assert ssim == [[[1.0, 1.0]], [[2.0, 0.4], [10.0, 0.7]]]

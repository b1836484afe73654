"""Figures show what the files of measurements hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import chart_style, curves, frontier_chart, plots
from experiments.records import rows_of
from experiments.tables import RESULTS

ROWS = [
    {"data": "mnist-5k", "scheme": scheme, "copies": copies, "labels": labels,
     "accuracy": accuracy, "identified": identified, "ssim": ssim}
    for scheme, copies, labels, accuracy, identified, ssim in (
        ("plain", "1", "soft", "98.5", "1.0", "1.0"),
        ("cross-4", "20", "soft", "97.0", "0.8", "0.7"),
        ("cross-4", "10", "soft", "97.5", "0.75", "0.6"),
        ("cross-4", "2", "soft", "95.0", "0.5", "0.4"),
        ("cross-4", "2", "soft", "96.0", "0.7", "0.4"),
        ("cross-4", "2", "hidden", "95.0", "0.4", "0.3"),
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


def test_the_frontier_joins_the_best_of_so_many_encodings_or_fewer() -> None:
    figure = Figure()
    frontier_chart.against_accuracy(figure, ROWS)
    (part,) = figure.subfigs
    panel, _key = part.axes
    assert panel.get_title() == "cross, k = 4"
    lines = [line.get_xydata().tolist() for line in panel.lines]
    joined = [[0.6, 95.5], [0.75, 97.5], [0.8, 97.5]]
    measured = [[0.6, 95.5], [0.75, 97.5], [0.8, 97.0]]
    assert lines[:3] == [joined, joined, measured]
    assert lines[-1] == [[1.0, 98.5]]
    assert panel.get_xlim()[0] == 0
    assert sorted(text.get_text() for text in panel.texts) == ["T = 2", "T = 20"]
    title = part.get_suptitle().replace("\n", " ")
    assert title.startswith("MNIST digits")
    assert "at least 60%" in title


def test_a_point_has_the_mean_and_deviation_of_its_runs() -> None:
    points = frontier_chart.courses(ROWS)["cross-4"]
    assert [point.copies for point in points] == [2, 10, 20]
    assert points[0].identified == pytest.approx((0.6, 0.1414), abs=1e-4)
    assert points[1].identified == (0.75, 0.0)


def test_curves_go_along_the_number_of_encodings() -> None:
    figure = Figure()
    frontier_chart.against_encodings(figure, ROWS)
    for axes, values in zip(figure.axes, ([0.6, 0.75, 0.8], [0.4, 0.6, 0.7]), strict=True):
        line = next(line for line in axes.lines if len(line.get_xdata()) == 3)
        assert line.get_xdata().tolist() == [2, 10, 20]
        assert list(line.get_ydata()) == pytest.approx(values)


def test_accuracy_is_drawn_as_a_mean_over_seeds() -> None:
    figure = Figure()
    axes = figure.subplots()
    curves.draw(axes, {"cross-4": np.array([[90.0, 94.0], [92.0, 96.0]])}, "Images")
    mean = next(line for line in axes.lines if line.get_label() == "cross, k = 4")
    assert mean.get_xydata().tolist() == [[1, 91], [2, 95]]
    assert [text.get_text().strip() for text in axes.texts] == ["cross, k = 4"]


def test_labels_keep_their_order_and_a_distance() -> None:
    values = np.array([5.0, 1.0, 5.1, 9.0])
    placed = chart_style.spread(values, 1, 0, 10)
    assert placed.tolist() == pytest.approx([4.55, 1.0, 5.55, 9.0])
    crowded = chart_style.spread(np.array([9.9, 10.0, 9.8]), 1, 0, 10)
    assert crowded.tolist() == pytest.approx([9.0, 10.0, 8.0])


def test_schemes_are_told_apart_without_colors() -> None:
    looks = chart_style.SCHEMES.values()
    assert len({look.mark for look in looks}) == len(chart_style.SCHEMES)
    assert chart_style.SCHEMES["cross-4"].dashes != chart_style.SCHEMES["cross-6"].dashes

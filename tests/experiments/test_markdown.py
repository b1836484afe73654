"""Markdown tables: alignment, cells, and empty tables."""

from __future__ import annotations

import pytest

from experiments import markdown


def test_columns_of_text_are_on_the_left_and_others_on_the_right() -> None:
    rows = [("a", 1, "hidden"), ("b", 2.5, "")]
    assert markdown.table(["name", "k", "labels"], rows, texts=(0, 2)) == [
        "| name | k | labels |",
        "| --- | ---: | --- |",
        "| a | 1 | hidden |",
        "| b | 2.5 |  |",
    ]
    assert markdown.table(["name", "k"], [("a", 1)])[1] == "| --- | ---: |"
    assert markdown.table(["n", "k"], [(1, 1)], texts=())[1] == "| ---: | ---: |"


def test_a_bar_in_a_cell_ends_no_cell() -> None:
    assert markdown.table(["|x|"], [["a|b"]])[::2] == [r"| \|x\| |", r"| a\|b |"]


def test_a_table_without_rows_has_no_lines() -> None:
    assert markdown.table(["name", "k"], iter([])) == []


@pytest.mark.parametrize("row", [("a",), ("a", 1, 2)])
def test_a_row_with_other_columns_is_refused(row: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=f"{len(row)} cells instead of 2"):
        markdown.table(["name", "k"], [("b", 1), row])


def test_an_empty_line_is_between_parts_that_have_lines() -> None:
    assert markdown.blocks([[], ["a", "b"], [], ["c"], []]) == ["a", "b", "", "c"]
    assert markdown.blocks([]) == []

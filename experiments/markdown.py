"""Markdown tables of results."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], texts: Collection[int] = (0,)
) -> list[str]:
    """Return the lines of a table, or none if it has no rows.

    Args:
        heads: the title of each column.
        rows: the cells of each row, one for each column.
        texts: the columns of text, on the left of their cells; numbers are on the right.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """
    rows = list(rows)
    for row in rows:
        if len(row) != len(heads):
            raise ValueError(f"This row has {len(row)} cells instead of {len(heads)}: {row}")
    rule = ["---" if column in texts else "---:" for column in range(len(heads))]
    return [_line(row) for row in (heads, rule, *rows)] if rows else []


def _line(cells: Iterable[object]) -> str:
    shown = (str(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(shown)} |"


def blocks(parts: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of all parts that have any, with an empty line between two parts."""
    return [line for part in parts if part for line in ("", *part)][1:]

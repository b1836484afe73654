"""Names of others as cells of a CSV file."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instahide.utils.csv_text import csv_text

ESCAPE = re.compile(r"\\(?:[\\trn]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
SIMPLE = {"\\\\": "\\", "\\t": "\t", "\\r": "\r", "\\n": "\n"}
#: What OWASP lists for CSV injection, and texts with an escape or a quote of their own.
HOSTILE = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\r=1+1", "\n=1+1", "  =1+1", "\uff1d1", "\uff0b1",
    "\uff0d1", "\uff201", "a;=1+1", 'a",=1+1', "'=1+1", "'", "\\t=1", "a\x1b[31m", "a\u202eb",
    "a\udcff", "", "\x00",
]  # fmt: skip
TEXTS = (
    st.text(st.characters(codec=None))
    | st.text("=+-@;',\"\\x3b \t\n\r\u202e")
    | st.sampled_from(HOSTILE)
)


def restored(cell: str) -> str:
    """The text of a cell, by what the documentation says of it."""
    cell = cell.removeprefix("'")
    return ESCAPE.sub(lambda found: SIMPLE.get(found[0]) or chr(int(found[0][2:], 16)), cell)


@given(TEXTS)
def test_a_cell_is_one_cell_and_no_formula_in_any_spreadsheet(text: str) -> None:
    cell = csv_text(text)
    written = io.StringIO()
    csv.writer(written).writerow([0, cell, "end"])
    for separator in ",;\t":
        (row,) = csv.reader(io.StringIO(written.getvalue(), newline=""), delimiter=separator)
        assert separator != "," or row == ["0", cell, "end"]
        assert separator == "," or len(row) == 1
        assert not any(re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", each) for each in row)
    assert cell.isprintable()
    cell.encode()


@given(TEXTS)
def test_the_text_can_be_had_back(text: str) -> None:
    assert restored(csv_text(text)) == text


@pytest.mark.parametrize(
    "name", ["a.png", "cat/1.png", "Miller, Anna", "Zoë 名前", "a-b=c.png", "1"]
)
def test_usual_names_are_as_they_are(name: str) -> None:
    assert csv_text(name) == name

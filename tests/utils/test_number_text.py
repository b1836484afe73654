"""A number is read only as other programs read it, too."""

from __future__ import annotations

import pytest

from instahide.utils.number_text import plain_float, plain_int


@pytest.mark.parametrize("text", ["1_0", "1_0.5", "\uff11\uff10", "\u0661", "1\u00a0", "", "x"])
def test_spellings_that_only_python_reads_are_refused(text: str) -> None:
    for read in (plain_float, plain_int):
        with pytest.raises(ValueError, match=r"."):
            read(text)


def test_plain_numbers_are_read() -> None:
    assert [plain_float(text) for text in ("1", " -2.5 ", "+1e3", ".5")] == [1, -2.5, 1000, 0.5]
    assert [plain_int(text) for text in ("1", " -2 ", "007")] == [1, -2, 7]

"""What readers of files log about them, also on threads that an error has left behind."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from instahide.data.readers.decode_listing import decode_listing
from instahide.data.readers.quiet import quiet_libraries
from instahide.errors import DataError
from tests.waiting import LIMIT

NAME = "pydicom"


@pytest.fixture
def logger() -> logging.Logger:
    """A library that is told to log every element of a file."""
    found = logging.getLogger(NAME)
    before = found.level
    found.setLevel(logging.DEBUG)
    yield found
    found.setLevel(before)


def test_a_thread_that_outlasts_an_error_logs_nothing(logger, caplog) -> None:
    begun, refused, ended = (threading.Event() for _ in range(3))

    def read(path: Path) -> None:
        if path.name == "bad":
            begun.wait(LIMIT)
            raise DataError("bad is not readable.", "Remove it.")
        begun.set()
        refused.wait(LIMIT)
        logger.debug("DOE^JOHN")
        ended.set()

    with pytest.raises(DataError), quiet_libraries():
        list(decode_listing((Path("bad"), Path("good")), read, None, workers=2, shown=False))
    refused.set()
    assert ended.wait(LIMIT)
    assert "DOE" not in caplog.text


def test_levels_are_as_before_when_all_have_ended(logger) -> None:
    with quiet_libraries():
        list(decode_listing((Path("a"), Path("b")), str, None, workers=2, shown=False))
        assert logger.level > logging.CRITICAL
    assert logger.level == logging.DEBUG

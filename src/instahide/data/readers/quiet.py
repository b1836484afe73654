"""Keeps the messages of libraries that read files out of logs and terminals."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Libraries whose messages may quote what stands in a file.
LIBRARIES = ("pydicom", "nibabel", "tifffile")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings and log records of `LIBRARIES` inside the block, also on other threads.

    A DICOM file could otherwise bring the name of a patient into a log.
    """
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            for name in LIBRARIES:
                warnings.filterwarnings("ignore", module=name)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""Decodes many files on threads, in order, and says which cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from instahide.data.readers.quiet import quiet_logs
from instahide.data.readers.skipped import UNREADABLE, Skipped
from instahide.errors import InstaHideError, IntegrationError, printable
from instahide.utils.parallel import parallel_map, with_progress

Read = TypeVar("Read")


def decode_listing(
    files: tuple[Path, ...],
    read: Callable[[Path], Read],
    skipped: list[Skipped] | None,
    *,
    workers: int | None = None,
    shown: bool = True,
    title: str = "Reading images",
    rows: tuple[str, ...] = (),
) -> Generator[tuple[int, Read], None, None]:
    """(number of the file, what ``read`` made of it), in order, read on threads.

    Files that ``read`` refuses are added to ``skipped``. In messages they are called by their
    names, or by ``rows``.

    Raises:
        InstaHideError: ``read`` refuses a file and ``skipped`` is None, or needs a package that is
            not installed.
    """

    def attempt(path: Path) -> Read | InstaHideError:
        try:
            # After an error, files that other threads have begun are read to their end.
            with quiet_logs():
                return read(path)
        except InstaHideError as error:
            return error

    results = with_progress(parallel_map(attempt, files, workers), title, len(files), shown)
    with closing(results):
        for number, result in enumerate(results):
            if not isinstance(result, InstaHideError):
                yield number, result
                continue
            if skipped is None or isinstance(result, IntegrationError):
                raise _called(result, files[number], rows[number]) if rows else result
            problem = _called(result, files[number], rows[number]) if rows else result
            skipped.append(Skipped(UNREADABLE, problem.problem))


def _called(error: InstaHideError, path: Path, row: str) -> InstaHideError:
    """``error`` with the row of a table in place of the name of the file."""
    problem = error.problem.replace(printable(str(path)), f"The image of {row[0].lower()}{row[1:]}")
    return type(error)(problem, error.remedy)

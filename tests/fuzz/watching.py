"""Runs readers on changed files, and says what they did that no reader may do.

A reader may return, or raise `InstaHideError` with a printable message. It may neither raise
anything else, nor take more than `CPU_SECONDS` of the processor, nor more memory than
`FREE_BYTES` and `MOST_RATIO` times the bytes of its input.
"""

from __future__ import annotations

import resource
import shutil
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

from instahide.errors import InstaHideError
from tests.fuzz.mutation import Seed, mutated
from tests.fuzz.readers import READERS, Reader

#: Of this process alone: how busy the machine is does not matter.
CPU_SECONDS = 5.0
FREE_BYTES = 256 << 20
MOST_RATIO = 64


class Finding(NamedTuple):
    """What a reader did: on which input, which can be made again from its number."""

    reader: str
    number: int
    what: str
    content: bytes = b""


class TooLongError(BaseException):
    """No reader catches it by `except Exception`."""


def fuzz(name: str, numbers: range, folder: Path) -> list[Finding]:
    """Give the inputs of these ``numbers`` to a reader, in ``folder``."""
    reader = READERS[name]
    seeds = reader.seeds()
    found = []
    with warnings.catch_warnings(), _timed():
        warnings.simplefilter("ignore")
        for number in numbers:
            seed, content = mutated(seeds, Random(f"{name} {number}"))  # noqa: S311  repeatable
            what = run(reader, seed, content, folder)
            if what is not None:
                found.append(Finding(name, number, what, content))
    return found


def run(reader: Reader, seed: Seed, content: bytes, folder: Path) -> str | None:
    """What the reader did wrong with one input, or None."""
    for other, text in seed.beside.items():
        (folder / other).write_bytes(text)
    path = folder / reader.file
    path.write_bytes(content)
    before = _peak()
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        reader.read(folder)
    except InstaHideError as error:
        if not str(error).isprintable():
            return f"message that is not printable: {error!r}"
    except TooLongError:
        return f"more than {CPU_SECONDS} s: {traceback.format_exc(limit=-4)}"
    except BaseException:
        return traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        _clear(folder, reader.leaves)
    taken = _peak() - before
    if taken > FREE_BYTES + MOST_RATIO * len(content):
        return f"{taken >> 20} MiB for {len(content)} bytes"
    return None


def _clear(folder: Path, leaves: tuple[str, ...]) -> None:
    for name in leaves:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _peak() -> int:
    """Most memory that this process has had so far: only a new maximum can be seen."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextmanager
def _timed() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGVTALRM, ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)

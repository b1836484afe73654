"""The DP-SGD steps on images of a ledger, in a file next to the ledger.

A ledger counts encodings, and its losses hold for neighboring data sets that differ in the pixels
of one image. The epsilon of DP-SGD holds for data sets with and without one image. The two do not
add up to an epsilon of either kind, so whoever keeps a limit must allow only one of them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from instahide.encodings.ledger.file_watch import resolve_path
from instahide.errors import DamagedFileError

#: Noise multiplier, sampling rate and number of steps of one part of the history.
Entry = tuple[
    Annotated[float, Field(gt=0, allow_inf_nan=False)],
    Annotated[float, Field(gt=0, le=1)],
    Annotated[int, Field(ge=1)],
]
_HISTORY = TypeAdapter(list[Entry])


def history_file(ledger: Path) -> Path:
    """The file with the DP-SGD steps of all runs on images of ``ledger``.

    All symbolic links to one ledger have one history.

    Raises:
        LedgerError: as for `file_watch.resolve_path`.
    """
    real = resolve_path(ledger)
    return real.with_name(f"{real.name}.dp-sgd.json")


@contextmanager
def locked_history(ledger: Path, *, shared: bool = False) -> Iterator[Path]:
    """`history_file`, which no other process changes inside a ``with`` block.

    Args:
        ledger: path of the ledger.
        shared: whether other shared blocks may run at the same time; no exclusive block can.

    Raises:
        LedgerError: as for `history_file`.
    """
    file = history_file(ledger)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield file


def read_history(file: Path) -> list[Entry]:
    """The DP-SGD steps so far, on any images of the ledger.

    Raises:
        DamagedFileError: the file is damaged, so the privacy loss so far is unknown.
    """
    if not file.exists():
        return []
    try:
        return _HISTORY.validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedFileError(
            f"{file} does not hold the history of DP-SGD.",
            "Restore it from a backup; without it the privacy loss so far is unknown.",
        ) from error


def added(history: list[Entry], entry: Entry) -> list[Entry]:
    """``history`` with ``entry``; consecutive steps of equal noise and rate are merged."""
    if history and history[-1][:2] == entry[:2]:
        return [*history[:-1], (*entry[:2], history[-1][2] + entry[2])]
    return [*history, entry]


def uncounted(ledger: Path) -> str:
    """What to add to a statement on the losses of ``ledger``; empty if DP-SGD never used it.

    Raises:
        LedgerError: as for `history_file`.
    """
    if not history_file(ledger).exists():
        return ""
    return ", by encodings alone (DP-SGD also trained on images of this ledger, and adds to it)"

"""CSV files of experiments: one row for each run, with everything that it depends on."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

#: Between these lines a page shows what was measured, and nobody writes there by hand.
START, END = "<!-- measured -->", "<!-- end of what was measured -->"


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return all rows, or none if the file does not exist yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(path: Path, fields: Sequence[str], *rows: Mapping[str, object]) -> None:
    """Append ``rows``, each with all ``fields``; a new file starts with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def surroundings() -> dict[str, object]:
    """Return what a result depends on besides its settings."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": commit.stdout.strip(),
    }


def percent(share: float) -> float:
    """Return ``share`` in percent, rounded as accuracies are saved."""
    return round(100 * share, 2)


def with_measured(text: str, lines: Sequence[str]) -> str:
    """Return ``text`` with ``lines`` between its markers."""
    before, _, rest = text.partition(START)
    section = "\n".join(lines)
    return f"{before}{START}\n\n{section}\n\n{END}{rest.partition(END)[2]}"

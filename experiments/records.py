"""CSV files of experiments: one row for each run, with everything that it depends on."""

from __future__ import annotations

import csv
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar

import torch

#: Between these lines a page shows what was measured, and nobody writes there by hand.
START, END = "<!-- measured -->", "<!-- end of what was measured -->"
#: A run: a tuple of the values that it is told apart by.
Run = TypeVar("Run", bound=tuple[Any, ...])


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return all rows, or none if the file does not exist yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keys_in(path: Path, names: Sequence[str]) -> set[tuple[str, ...]]:
    """Return the values of the columns ``names`` of all rows."""
    return {tuple(row[name] for name in names) for row in rows_of(path)}


def missing(path: Path, names: Sequence[str], runs: Iterable[Run]) -> list[Run]:
    """Return those of ``runs``, each with values of the columns ``names``, that have no row."""
    have = keys_in(path, names)
    return [run for run in runs if tuple(map(str, run)) not in have]


def mean_by(
    rows: Iterable[Mapping[str, str]],
    name_of: Callable[[Mapping[str, str]], str],
    column: str,
    digits: int = 1,
) -> dict[str, float]:
    """Return the rounded mean of ``column`` over the rows of each name."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(name_of(row), []).append(float(row[column]))
    return {name: round(mean(values), digits) for name, values in found.items()}


def add(path: Path, fields: Sequence[str], *rows: Mapping[str, object]) -> None:
    """Append ``rows``, each with all ``fields``; a new file starts with a header.

    A file with other columns is refused: its rows would be read under wrong names.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    known = path.read_text(encoding="utf-8").split("\n")[0].rstrip("\r") if path.exists() else ""
    if known and known.split(",") != list(fields):
        raise SystemExit(f"{path} has other columns. Write to another file.")
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


def by_scheme(
    rows: Sequence[Mapping[str, str]], data: str, epochs: int, column: str, digits: int
) -> dict[str, object]:
    """Return mean and deviation of ``column`` for each scheme, and its drop from plain training."""
    mine = [row for row in rows if (row["data"], row["epochs"]) == (data, str(epochs))]
    figures: dict[str, object] = {"data": data, "epochs": epochs}
    means = {}
    for scheme in sorted({row["scheme"] for row in mine}):
        values = [float(row[column]) for row in mine if row["scheme"] == scheme]
        means[scheme] = mean(values)
        figures[scheme] = {
            "seeds": len(values),
            "mean": round(mean(values), digits),
            "deviation": round(stdev(values), digits) if len(values) > 1 else None,
        }
    if "plain" in means:
        drops = {name: round(means["plain"] - value, digits) for name, value in means.items()}
        figures["drop"] = {name: drop for name, drop in drops.items() if name != "plain"}
    return figures


def run_missing(
    out: Path,
    fields: Sequence[str],
    settings: Mapping[str, str],
    options: tuple[str, int],
    run: Callable[[str, int, Path], Mapping[str, object]],
) -> None:
    """Add a row to ``out`` for each scheme and seed that has none.

    Args:
        out: the CSV file; an interrupted run is kept in ``runs`` beside it.
        fields: its columns.
        settings: ``schemes`` and ``seeds``, each separated by commas.
        options: the name of the data, and the number of epochs.
        run: trains a scheme from a seed in a folder, or continues there; returns what it measured.
    """
    data, epochs = options
    have = keys_in(out, ("data", "scheme", "seed", "epochs"))
    for seed in settings["seeds"].split(","):
        for scheme in settings["schemes"].split(","):
            if (data, scheme, seed, str(epochs)) in have:
                continue
            folder = out.parent / "runs" / f"{data}-{scheme}-{seed}-{epochs}"
            found = run(scheme, int(seed), folder)
            known = {"data": data, "scheme": scheme, "seed": seed, "epochs": epochs}
            add(out, fields, {**known, **found, **surroundings()})
            shutil.rmtree(folder)


def percent(share: float) -> float:
    """Return ``share`` in percent, rounded as accuracies are saved."""
    return round(100 * share, 2)


def with_measured(text: str, lines: Sequence[str]) -> str:
    """Return ``text`` with ``lines`` between its markers."""
    before, _, rest = text.partition(START)
    section = "\n".join(lines)
    return f"{before}{START}\n\n{section}\n\n{END}{rest.partition(END)[2]}"

"""`instahide hardness`."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from instahide.audit.hardness import Setting, report
from instahide.cli.console import out

#: Hours in larger units, largest first.
_UNITS = (("years", 24 * 365.25), ("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60))
_SECONDS = 1 / 3600
#: Beyond this a number of years is only a power of ten.
_MOST = 1e6


def show_hardness(setting: Setting, rate: float, price: float, as_json: bool) -> None:
    """Print what attacks on ``setting`` would cost, with the source and the assumptions of each."""
    result = report(setting, rate=rate, price=price)
    if as_json:
        print(json.dumps(result))
        return
    out.print(_table(result["figures"], rate, price))
    for row in result["figures"]:
        out.print(row["name"], style="bold", end="")
        out.print(f": {row['formula']}. {row['assumes']} {row['source']}.")
    out.print(result["caveat"])


def duration(hours: float | None) -> str:
    """A time that people can picture."""
    if hours is None:
        return "beyond counting"
    for unit, size in _UNITS:
        if hours >= size:
            return _spelt(hours / size, unit)
    return _spelt(hours / _SECONDS, "seconds")


def _table(rows: list[dict[str, Any]], rate: float, price: float) -> Table:
    table = Table(
        title=f"At {rate:.0e} steps a second and core, and {price:g} dollars a core and hour",
        title_justify="left",
    )
    for name in ("attack", "what is counted"):
        table.add_column(name)
    for name in ("number", "time of one core", "dollars"):
        table.add_column(name, justify="right")
    for row in rows:
        timed = row["steps"]
        cost = row["dollars"]
        table.add_row(
            row["name"],
            row["kind"],
            f"2^{row['log2']:.1f}",
            duration(row["core_hours"]) if timed else "",
            ("beyond counting" if cost is None else _spelt(cost, "")) if timed else "",
        )
    return table


def _spelt(value: float, unit: str) -> str:
    number = (
        f"{value:.1e}" if value >= _MOST else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    )
    return f"{number} {unit}".rstrip()

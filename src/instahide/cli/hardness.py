"""`instahide hardness`."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel, Field
from rich.table import Table

from instahide.audit.hardness import PricedFigure, Setting, report
from instahide.cli.console import out
from instahide.cli.options import command

#: Hours in larger units, largest first.
_UNITS = (("years", 24 * 365.25), ("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60))
_SECONDS = 1 / 3600
#: Beyond this a number of years is only a power of ten.
_MOST = 1e6


class HardnessOptions(BaseModel):
    """What `instahide hardness` takes."""

    images: int = Field(description="images that partners are drawn from, all of them known")
    k: int = Field(4, description="images in a mix")
    private: int = Field(100, description="private images")
    private_k: int = Field(2, description="private images in a mix")
    encodings: int = Field(1, description="published encodings, in all")
    values: int = Field(3072, description="values of an image")
    rate: float = Field(1e9, description="steps per second of one core")
    price: float = Field(0.05, description="dollars per hour of one core")


@command
def hardness(options: HardnessOptions) -> None:
    """Estimate what attacks would cost, by published formulas.

    Each formula is shown with its assumptions; no figure is a guarantee. Example:
    instahide hardness --images 10000 --k 4
    """
    rate, price = options.rate, options.price
    setting = Setting(**options.model_dump(exclude={"rate", "price"}))
    result = report(setting, rate=rate, price=price)
    explanations = [
        f"{row.name}: {row.formula}. {row.assumes} {row.source}." for row in result.figures
    ]
    table = _table(result.figures, rate, price)
    out.results(asdict(result), table, *explanations, result.caveat)


def duration(hours: float | None) -> str:
    """A duration in a readable unit."""
    if hours is None:
        return "beyond counting"
    for unit, size in _UNITS:
        if hours >= size:
            return _spelt(hours / size, unit)
    return _spelt(hours / _SECONDS, "seconds")


def _table(rows: list[PricedFigure], rate: float, price: float) -> Table:
    table = Table(
        title=f"At {rate:.0e} steps a second and core, and {price:g} dollars a core and hour",
        title_justify="left",
    )
    for name in ("attack", "what is counted"):
        table.add_column(name)
    for name in ("number", "time of one core", "dollars"):
        table.add_column(name, justify="right")
    for row in rows:
        cost = "beyond counting" if row.dollars is None else _spelt(row.dollars, "")
        table.add_row(
            row.name,
            row.kind,
            f"2^{row.log2:.1f}",
            duration(row.core_hours) if row.steps else "",
            cost if row.steps else "",
        )
    return table


def _spelt(value: float, unit: str) -> str:
    number = (
        f"{value:.1e}" if value >= _MOST else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    )
    return f"{number} {unit}".rstrip()

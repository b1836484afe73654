"""`instahide ledger`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.bar import Bar
from rich.table import Table

from instahide.cli.console import notes, out
from instahide.cli.options import LABEL_PANEL, Delta, LedgerFile, command
from instahide.data import open_images
from instahide.data.read_settings import ReadSettings

if TYPE_CHECKING:
    from instahide.encodings.ledger.ledger import Totals

#: Largest number of bars of the histogram.
_BARS = 10

MEANING = (
    "The authors' challenge fell with about 100 exposures of each image: it was in 50 encodings as "
    "the first and in about 50 as the second partner (Carlini et al., arXiv:2011.05315). Later "
    "attacks needed fewer. No number is safe: attacks gain with every encoding, and get better."
)


class LedgerOptions(ReadSettings):
    """What `instahide ledger` takes."""

    path: LedgerFile = None
    data: str | None = Field(None, description="only the images of this folder, file or URL")
    delta: Delta = 1e-5


@command
def ledger(options: Annotated[LedgerOptions, {"Labels": LABEL_PANEL}]) -> None:
    """Show how often your images have been encrypted, over all runs.

    Only totals are shown, nothing about a single image. Example: instahide ledger --data mnist-5k
    """
    from instahide.encodings.ledger.ledger import default_ledger

    path = options.path or default_ledger()
    figures = summary(_totals(path, options), options.delta)
    results = {"ledger": path, **figures}
    if not figures["exposures"]:
        out.results(results, _nothing(path, options.data))
        return
    out.results(
        results,
        f"Ledger {path}",
        _table(figures),
        _histogram(figures["histogram"]),
        figures["differential_privacy"],
    )
    notes.print(MEANING)


def summary(totals: Totals, delta: float = 1e-5) -> dict[str, Any]:
    """The figures of ``totals``, ready for JSON.

    An exposure is one image in one encoding; images of a group are counted as one. Squared
    coefficients are a mean over exposures. Epsilon is that of the least protected image; None if it
    has no guarantee. The privacy statement is None if no encoding was counted.
    """
    from instahide.encryption.privacy import epsilon_of, privacy_statement

    counts, exposures = totals.counts, int(totals.counts.sum())
    losses = totals.losses[counts > 0]
    epsilon = epsilon_of(float(losses.max(initial=0)), delta)
    # If no image has an encoding with noise, no noise was ever added.
    noise = bool(np.isfinite(losses).any())
    some = len(counts) > 0
    return {
        "images": len(counts),
        "exposures": exposures,
        "least": int(counts.min()) if some else None,
        "median": float(np.median(counts)) if some else None,
        "mean": float(counts.mean()) if some else None,
        "most": int(counts.max()) if some else None,
        "mean_squared_coefficient": totals.squares.sum() / exposures if exposures else None,
        "epsilon": epsilon if exposures and math.isfinite(epsilon) else None,
        "delta": delta,
        "differential_privacy": privacy_statement(epsilon, delta, noise=noise)
        if exposures
        else None,
        "histogram": histogram(counts) if some else [],
    }


def histogram(counts: NDArray[np.int64]) -> list[dict[str, int]]:
    """Numbers of ``images`` with ``from`` to ``to`` exposures, in equal steps over ``counts``."""
    low, high = int(counts.min()), int(counts.max())
    width = (high - low) // _BARS + 1
    bars = np.bincount((counts - low) // width)
    return [
        {"from": low + width * bar, "to": low + width * (bar + 1) - 1, "images": int(images)}
        for bar, images in enumerate(bars)
    ]


def _totals(path: Path, options: LedgerOptions) -> Totals:
    from instahide.encodings.ledger.ledger import Ledger, Totals

    if not path.exists():
        # Do not create a ledger to read it.
        return Totals(np.empty(0, np.int64), np.empty(0), np.empty(0))
    images = None
    if options.data is not None:
        images = open_images(options.data, **options.read_options())
    with Ledger.open(path) as opened:
        return opened.totals(images, progress=True)


def _nothing(path: Path, data: str | None) -> str:
    if not path.exists():
        return f"There is no ledger at {path}: nothing has been counted there."
    what = "no image" if data is None else f"no image of {data}"
    return f"The ledger {path} has counted {what} in any encoding."


def _table(figures: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = [
        ("images; those of a group are one", f"{figures['images']:,}"),
        ("exposures: one image in one encoding", f"{figures['exposures']:,}"),
        ("exposures of an image or group, least", f"{figures['least']:,}"),
        ("exposures of an image or group, median", f"{figures['median']:,.1f}"),
        ("exposures of an image or group, mean", f"{figures['mean']:,.1f}"),
        ("exposures of an image or group, most", f"{figures['most']:,}"),
        ("squared coefficient of an exposure, mean", f"{figures['mean_squared_coefficient']:.3f}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _histogram(bars: list[dict[str, int]]) -> Table:
    table = Table(box=None)
    for title in ("exposures", "images"):
        table.add_column(title, justify="right")
    table.add_column("")
    most = max(bar["images"] for bar in bars)
    for bar in bars:
        span = f"{bar['from']:,}" + (f" to {bar['to']:,}" if bar["to"] > bar["from"] else "")
        table.add_row(span, f"{bar['images']:,}", Bar(most, 0, bar["images"], width=40))
    return table

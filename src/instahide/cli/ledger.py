"""`instahide ledger`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.bar import Bar
from rich.table import Table

from instahide.cli.console import out
from instahide.data import open_images
from instahide.encodings.ledger.ledger import Ledger, Totals, default_ledger
from instahide.encryption.privacy import DELTA, epsilon_of, privacy_statement

#: Bars of the histogram, at most.
_BARS = 10

MEANING = (
    "The authors' challenge fell with about 100 exposures of each image: it was in 50 encodings as "
    "the first and in about 50 as the second partner (Carlini et al., arXiv:2011.05315). Later "
    "attacks needed fewer. No number is safe: attacks gain with every encoding, and get better."
)


def show_ledger(
    path: Path | None,
    data: str | None,
    size: int | None,
    skip_bad: bool,
    as_json: bool,
    delta: float = DELTA,
) -> None:
    """Print what the ledger says of all images, or of those of ``data``; never of a single one.

    Args:
        path: of the ledger; the default one if it is None.
        data: a source of images; without it, all that were ever counted.
        size: that the images are resized to before they are encrypted.
        skip_bad: leave out files that cannot be read.
        as_json: print one JSON object instead of tables.
        delta: that the epsilon of noise is given at.
    """
    path = path or default_ledger()
    figures = summary(_totals(path, data, size, skip_bad), delta)
    if as_json:
        print(json.dumps({"ledger": str(path), **figures}))
    elif not figures["exposures"]:
        out.print(_nothing(path, data))
    else:
        out.print(f"Ledger {path}")
        out.print(_table(figures))
        out.print(_histogram(figures["histogram"]))
        out.print(figures["differential_privacy"])
        out.print(MEANING)


def summary(totals: Totals, delta: float = DELTA) -> dict[str, Any]:
    """What there is to say of ``totals``, ready for JSON; None where there is nothing to say.

    An exposure is one image in one encoding. Squared coefficients are a mean over exposures.
    Epsilon is that of the image that noise protects least: None where it has no guarantee. The
    same in words is None where no encoding was counted, of which there is nothing to promise.
    """
    counts, exposures = totals.counts, int(totals.counts.sum())
    losses = totals.losses[counts > 0]
    epsilon = epsilon_of(float(losses.max(initial=0)), delta)
    # Where every image went out without noise, none was ever added.
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


def _totals(path: Path, data: str | None, size: int | None, skip_bad: bool) -> Totals:
    if not path.exists():
        # To look is no reason to make one.
        return Totals(np.empty(0, np.int64), np.empty(0), np.empty(0))
    images = None if data is None else open_images(data, size=size, skip_bad=skip_bad)
    with Ledger.open(path) as ledger:
        return ledger.totals(images, progress=True)


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
        ("images", f"{figures['images']:,}"),
        ("exposures: one image in one encoding", f"{figures['exposures']:,}"),
        ("exposures of an image, least", f"{figures['least']:,}"),
        ("exposures of an image, median", f"{figures['median']:,.1f}"),
        ("exposures of an image, mean", f"{figures['mean']:,.1f}"),
        ("exposures of an image, most", f"{figures['most']:,}"),
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

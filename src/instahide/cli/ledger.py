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
from instahide.cli.options import (
    LABEL_PANEL,
    Baseline,
    Delta,
    LedgerFile,
    Prior,
    command,
    prior_of,
)
from instahide.data import open_images
from instahide.data.read_settings import ReadSettings
from instahide.errors import InstaHideError

if TYPE_CHECKING:
    from instahide.encodings.ledger.ledger import Totals

#: Largest number of bars of the histogram.
_BARS = 10
#: The sentences of `summary` that are printed.
STATEMENTS = (
    "differential_privacy",
    "error_floor",
    "error_floor_with_a_prior",
    "reconstruction_robustness",
)

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
    baseline: Baseline = 0.001
    prior: Prior = None


@command
def ledger(options: Annotated[LedgerOptions, {"Labels": LABEL_PANEL}]) -> None:
    """Show how often your images have been encrypted, over all runs.

    Only totals are shown, nothing about a single image. Example: instahide ledger --data mnist-5k
    """
    from instahide.encodings.ledger.dp_sgd_history import uncounted
    from instahide.encodings.ledger.ledger import default_ledger

    path = options.path or default_ledger()
    totals, shape = _totals(path, options)
    values = None if shape is None else math.prod(shape)
    scope = uncounted(path) if path.exists() else ""
    figures = summary(totals, options.delta, values=values, baseline=options.baseline, scope=scope)
    if options.prior is not None and figures["exposures"]:
        if shape is None:
            raise InstaHideError("A prior is for images of a size.", "Name them with --data.")
        loss = float(totals.losses.max())
        figures["error_floor_with_a_prior"] = prior_of(options.prior, shape).statement(loss) + scope
    results = {"ledger": path, **figures}
    if not figures["exposures"]:
        out.results(results, _nothing(path, options.data))
        return
    out.results(
        results,
        f"Ledger {path}",
        _table(figures),
        _histogram(figures["histogram"]),
        *(figures[name] for name in STATEMENTS if name in figures),
    )
    notes.print(MEANING)


def summary(
    totals: Totals,
    delta: float = 1e-5,
    *,
    values: int | None = None,
    baseline: float = 0.001,
    scope: str = "",
) -> dict[str, Any]:
    """The figures of ``totals``, ready for JSON.

    An exposure is one image in one encoding; images of a group are counted as one. Squared
    coefficients are a mean over exposures. Epsilon and the least error floor are those of the least
    protected image; None if it has no guarantee. Statements are None if no encoding was counted.

    Args:
        totals: totals of the images.
        delta: delta of epsilon.
        values: number of values of an image, for error floors; None if it is unknown.
        baseline: kappa of `robustness.success_bound`.
        scope: text that qualifies the statements, as of `dp_sgd_history.uncounted`.

    Raises:
        InstaHideError: ``delta`` or ``baseline`` is not between 0 and 1.
    """
    from instahide.encryption.guarantees.error_floor import floor_statement
    from instahide.encryption.guarantees.statements import Guarantees

    counts, exposures = totals.counts, int(totals.counts.sum())
    losses = totals.losses[counts > 0]
    # If no image has an encoding with noise, no noise was ever added.
    noise = bool(np.isfinite(losses).any())
    found = Guarantees.of(float(losses.max(initial=0)), values, noise=noise, delta=delta)
    statements: dict[str, str | None] = {**found.statements(baseline, scope=scope)}
    if values is None:
        unnamed = "; name the images with --data"
        statements["error_floor"] = floor_statement(None, noise=noise, scope=unnamed)
    if not exposures:
        statements = dict.fromkeys(statements)
    some = len(counts) > 0
    return {
        "images": len(counts),
        "exposures": exposures,
        "least": int(counts.min()) if some else None,
        "median": float(np.median(counts)) if some else None,
        "mean": float(counts.mean()) if some else None,
        "most": int(counts.max()) if some else None,
        "mean_squared_coefficient": totals.squares.sum() / exposures if exposures else None,
        "epsilon": _finite(found.epsilon) if exposures else None,
        "delta": delta,
        "error_floor_least": _finite(found.floor) if exposures else None,
        "error_floor_median": _median_floor(losses, values),
        **statements,
        "histogram": histogram(counts) if some else [],
    }


def _median_floor(losses: NDArray[np.float64], values: int | None) -> float | None:
    """The median of the error floors of the images that were encoded; None if it is unknown."""
    from instahide.encryption.guarantees.error_floor import unbiased_floor

    if values is None or not len(losses):
        return None
    return unbiased_floor(float(np.median(losses)), values)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def histogram(counts: NDArray[np.int64]) -> list[dict[str, int]]:
    """Numbers of ``images`` with ``from`` to ``to`` exposures, in equal steps over ``counts``."""
    low, high = int(counts.min()), int(counts.max())
    width = (high - low) // _BARS + 1
    bars = np.bincount((counts - low) // width)
    return [
        {"from": low + width * bar, "to": low + width * (bar + 1) - 1, "images": int(images)}
        for bar, images in enumerate(bars)
    ]


def _totals(path: Path, options: LedgerOptions) -> tuple[Totals, tuple[int, ...] | None]:
    """The totals, and the shape of the images if it is known."""
    from instahide.encodings.ledger.ledger import Ledger, Totals

    if not path.exists():
        # Do not create a ledger to read it.
        return Totals(np.empty(0, np.int64), np.empty(0), np.empty(0)), None
    images = None
    if options.data is not None:
        images = open_images(options.data, **options.read_options())
    with Ledger.open(path) as opened:
        shape = None if images is None else images.shape
        return opened.totals(images, progress=True), shape


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
    if (median := figures["error_floor_median"]) is not None:
        rows.append(("error floor of an image or group, median", f"{median:.3g}"))
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

"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from instahide.errors import InstaHideError

#: Along the side of an image.
MOST_PIXELS = 1 << 14
#: Of anything else that is counted.
MOST = 1_000_000

Source = Annotated[
    str,
    typer.Argument(help="Images: digits, mnist-5k, fashion-mnist, a folder, a file or a URL."),
]
Pool = Annotated[str, typer.Option("--public", help="A public pool's folder, or `photos`.")]
Size = Annotated[
    int | None,
    typer.Option(
        help="Resize the short side to so many pixels and crop the centre.", min=1, max=MOST_PIXELS
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")]
Classes = Annotated[
    str | None,
    typer.Option(help="All classes of all participants: cat,dog or a file with one name a line."),
]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", help="The ledger; $INSTAHIDE_LEDGER or the user's own by default."),
]

# Of a scheme; what is not given is the scheme's own.
PrivateK = Annotated[int | None, typer.Option(help="Private images in a mix.")]
C1 = Annotated[float | None, typer.Option(help="Bound of every coefficient.")]
C2 = Annotated[float | None, typer.Option(help="Least sum of the private ones.")]
LabelMode = Annotated[Literal["soft", "renormalised"] | None, typer.Option(help="Labels of a mix.")]
Distribution = Annotated[
    Literal["half-normal", "dirichlet"] | None,
    typer.Option(help="Distribution of the coefficients."),
]
Noise = Annotated[
    float | None,
    typer.Option(help="Deviation of Gaussian noise on every value, in normalized units."),
]
Delta = Annotated[float, typer.Option(help="The delta at which the epsilon of noise is given.")]


def numbers(text: str) -> tuple[float, ...]:
    """One number a channel, as typed: ``0.49,0.48,0.45``.

    Raises:
        InstaHideError: something else was typed.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InstaHideError(
            f"{text!r} is not one number a channel.", "Write 0.29, or 0.49,0.48,0.45 for colour."
        ) from error

"""`instahide challenge make | score | info`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from pydantic import BaseModel, Field
from rich.table import Table

from instahide.cli.console import SafeGroup, out
from instahide.cli.options import (
    ENCODER,
    MOST,
    EncoderSettings,
    Pool,
    Size,
    Source,
    command,
    require_named_encoder,
    require_no_scheme,
)
from instahide.data import open_images, open_pool
from instahide.encryption.scheme import Scheme

if TYPE_CHECKING:
    from instahide.encryption.encoders.base import InstanceEncoder

challenge = typer.Typer(
    cls=SafeGroup,
    help="Make and score challenges for attackers, with the truth kept apart.",
    no_args_is_help=True,
)

TruthFolder = Annotated[Path, typer.Option("--truth", help="Folder of the truth, kept apart.")]


class MakeOptions(BaseModel):
    """What `instahide challenge make` takes."""

    source: Source
    out: Annotated[Path, typer.Option(help="Folder for attackers.")]
    truth: TruthFolder
    public: Pool = "photos"
    images: int = Field(100, description="largest number of private images", ge=1)
    copies: int = Field(50, description="encodings of each image", ge=1, le=MOST)
    k: int = Field(6, description="images in a mix")
    private_k: int = Field(2, description="private images in a mix")
    c1: float | None = Field(None, description="upper bound of every coefficient")
    c2: float | None = Field(None, description="lower bound of the sum of private coefficients")
    encoder: str | None = Field(None, description=ENCODER)
    encoder_settings: EncoderSettings = Field(default_factory=list)
    size: Size = None


@challenge.command()
@command
def make(options: MakeOptions) -> None:
    """Encrypt images into a challenge for attackers.

    The images and the keys go into the truth's folder. Whoever has the challenge can recover the
    images: use none that are really private.
    """
    from instahide.audit.challenge.challenge import make_challenge

    encoder = _encoder(options)
    table = open_images(options.source, size=options.size)
    count = min(options.images, len(table))
    chosen = table.subset(np.linspace(0, len(table) - 1, count).astype(np.int64))
    pool = open_pool(options.public, table.shape) if encoder.uses_public else None
    made = make_challenge(
        chosen, pool, options.out, options.truth, encoder=encoder, copies=options.copies
    )
    out.results(
        {"folder": options.out, "truth": options.truth, "challenge": str(made)},
        f"{made}: {options.out}; the truth: {options.truth}",
    )


def _encoder(options: MakeOptions) -> InstanceEncoder:
    """The scheme or the other encoder of the options.

    Raises:
        InstaHideError: it cannot be made, or both are given.
    """
    from instahide.encryption.encoders.registry import encoder_named, parse_settings

    require_named_encoder(options.encoder, options.encoder_settings)
    if options.encoder is None:
        return Scheme.preset(
            "cross", options.k, private_k=options.private_k, c1=options.c1, c2=options.c2
        )
    require_no_scheme(options, ("k", "private_k", "c1", "c2"))
    return encoder_named(options.encoder, parse_settings(options.encoder_settings))


@challenge.command()
@command
def score(
    submission: Annotated[Path, typer.Argument(help="File decryption.npy, N x H x W x C.")],
    truth: TruthFolder,
    name: Annotated[str, typer.Option(help="Name of the entry in the leaderboard.")] = "",
    leaderboard: Annotated[
        Path | None, typer.Option(help="CSV file that the entry is added to.")
    ] = None,
) -> None:
    """Score a submission against the truth.

    For comparison, the score of a blank submission is shown, whose pictures have a single color.
    """
    from instahide.audit.challenge.challenge import ChallengeTruth
    from instahide.audit.challenge.leaderboard import enter, score_blank, score_submission

    opened = ChallengeTruth.open(truth)
    found = score_submission(submission, opened)
    if leaderboard is not None:
        enter(leaderboard, name, found)
    figures, blank = asdict(found), asdict(score_blank(opened))
    table = Table("figure", "submission", "blank")
    for figure, value in figures.items():
        table.add_row(figure, f"{value:.4g}", f"{blank[figure]:.4g}")
    out.results({**figures, "blank": blank}, table)


@challenge.command()
@command
def info(
    folder: Annotated[Path, typer.Argument(help="Folder of the challenge.")],
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder of the challenge, if it is of another package."),
    ] = None,
) -> None:
    """Show what a challenge holds.

    The two files of the authors' challenge can also be read.
    """
    from instahide.audit.challenge.challenge import Challenge

    given = Challenge.open(folder, encoder)
    count, *shape = given.encodings.shape
    classes = given.labels.shape[1]
    out.results(
        {
            "encodings": count,
            "shape": shape,
            "copies": given.copies,
            "classes": classes,
            "encoder": given.encoder.name,
            "scheme": dict(given.encoder.settings),
        },
        f"{count:,} encodings of {' x '.join(map(str, shape))}, {given.copies} of an image",
        f"{classes} classes; labels sum to {given.labels.sum(1).mean():.3f}",
        f"{given.encoder}",
    )

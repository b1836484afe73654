"""`instahide challenge make | official | info | score | baselines | leaderboard`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import typer
from pydantic import BaseModel, Field
from rich.table import Table

from instahide.cli.challenge_board import baselines, leaderboard
from instahide.cli.console import SafeGroup, notes, out
from instahide.cli.options import (
    ENCODER,
    MOST,
    EncoderSettings,
    GivenFolder,
    Pool,
    Size,
    Source,
    TruthFolder,
    command,
    require_named_encoder,
    require_no_scheme,
)
from instahide.data import open_images, open_pool
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

if TYPE_CHECKING:
    from instahide.audit.challenge.challenge import Challenge
    from instahide.audit.challenge.making import Name
    from instahide.encryption.encoders.base import InstanceEncoder

challenge = typer.Typer(
    cls=SafeGroup,
    help="Make challenges for attackers, score submissions and rank them.",
    no_args_is_help=True,
)

NewFolder = Annotated[Path, typer.Option("--out", help="Folder for attackers.")]
NamedEncoder = Annotated[
    str | None, typer.Option(help="Encoder of the challenge, if it is of another package.")
]


class MakeOptions(BaseModel):
    """What `instahide challenge make` takes."""

    source: Source
    out: NewFolder
    truth: TruthFolder
    kind: Literal["competition", "practice"] = Field(
        "competition",
        description="competition: random keys, and the truth is yours alone; practice: keys of a "
        "public seed, of built-in images (digits, mnist-5k, photographs), with a public truth",
    )
    seed: int | None = Field(None, description="public seed of a practice set", ge=0)
    id: str | None = Field(None, description="name, as digits-2; if omitted, from the hash")
    version: int = Field(1, description="version of the challenge", ge=1, le=MOST)
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
    from instahide.audit.challenge.making import Name

    name = Name(options.id, options.version)
    make = _practice if options.kind == "practice" else _competition
    _print_made(make(options, name), options.out, options.truth)


def _competition(options: MakeOptions, name: Name) -> Challenge:
    from instahide.audit.challenge.making import make_challenge

    if options.seed is not None:
        raise InstaHideError(
            "A competition has no seed: whoever knew it could decrypt the challenge.",
            "Leave out --seed, or make a practice set with --kind practice.",
        )
    encoder = _encoder(options)
    table = open_images(options.source, size=options.size)
    count = min(options.images, len(table))
    chosen = table.subset(np.linspace(0, len(table) - 1, count).astype(np.int64))
    pool = open_pool(options.public, table.shape) if encoder.uses_public else None
    return make_challenge(
        chosen, pool, options.out, options.truth, encoder=encoder, copies=options.copies, name=name
    )


def _practice(options: MakeOptions, name: Name) -> Challenge:
    from instahide.audit.challenge.practice import PracticeSet, make_practice, practice_recipe

    if options.seed is None:
        raise InstaHideError("A practice set needs a seed.", "Give a number, as in --seed 7.")
    for unused in ("public", "encoder", "encoder_settings", "size"):
        if unused in options.model_fields_set:
            raise InstaHideError(
                f"--{unused.replace('_', '-')} is not an option of practice sets, which have "
                "built-in images of their own.",
                "Leave it out.",
            )
    recipe = practice_recipe(options.source, options.images, options.seed)
    practice = PracticeSet(recipe, options.copies, _scheme(options))
    return make_practice(practice, options.out, options.truth, name)


def _print_made(made: Challenge, folder: Path, truth: Path) -> None:
    from instahide.audit.challenge.practice import WARNING

    facts = made.facts
    if facts.kind == "practice":
        notes.print(f"Note: {WARNING}")
    out.results(
        {**_named(made), "folder": folder, "truth": truth},
        f"{facts.id}, version {facts.version}, {facts.kind}: {folder}; the truth: {truth}",
        f"SHA-256: {facts.sha256}",
    )


def _named(made: Challenge) -> dict[str, object]:
    facts = made.facts
    return {
        "id": facts.id, "version": facts.version, "kind": facts.kind, "sha256": facts.sha256,
    }  # fmt: skip


def _encoder(options: MakeOptions) -> InstanceEncoder:
    """The scheme or the other encoder of the options.

    Raises:
        InstaHideError: it cannot be made, or both are given.
    """
    from instahide.encryption.encoders.registry import encoder_named, parse_settings

    require_named_encoder(options.encoder, options.encoder_settings)
    if options.encoder is None:
        return _scheme(options)
    require_no_scheme(options, ("k", "private_k", "c1", "c2"))
    return encoder_named(options.encoder, parse_settings(options.encoder_settings))


def _scheme(options: MakeOptions) -> Scheme:
    return Scheme.preset(
        "cross", options.k, private_k=options.private_k, c1=options.c1, c2=options.c2
    )


@challenge.command()
@command
def official(
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="Id of the set; if omitted, all are listed.")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder for attackers.")] = Path("given"),
    truth: Annotated[Path, typer.Option(help="Folder of the public truth.")] = Path("truth"),
) -> None:
    """Make an official practice set, or list all of them.

    Everybody makes the same files, bit for bit; their hash is checked. Results of different people
    are therefore comparable.
    """
    from instahide.audit.challenge.practice import OFFICIAL, make_official

    if name is not None:
        _print_made(make_official(name, folder, truth), folder, truth)
        return
    table = Table("id", "version", "images", "copies", "k", "SHA-256")
    for each, (version, practice, sha256) in OFFICIAL.items():
        recipe = practice.recipe
        images = f"{recipe.images} {recipe.data}"
        row = (version, images, practice.copies, practice.scheme.k, f"{sha256[:12]}…")
        table.add_row(each, *map(str, row))
    listed = {
        each: {
            "version": found.version,
            "sha256": found.sha256,
            **found.practice.recipe.model_dump(),
            "copies": found.practice.copies,
            "scheme": dict(found.practice.scheme.settings),
        }
        for each, found in OFFICIAL.items()
    }
    out.results(listed, table)


@challenge.command()
@command
def info(folder: GivenFolder, encoder: NamedEncoder = None) -> None:
    """Check the hashes of a challenge, and show what it holds.

    The two files of the authors' challenge can also be read.
    """
    from instahide.audit.challenge.challenge import Challenge

    given = Challenge.open(folder, encoder)
    count, *shape = given.encodings.shape
    classes = given.labels.shape[1]
    facts = given.facts
    out.results(
        {
            **_named(given),
            "encodings": count,
            "shape": shape,
            "copies": given.copies,
            "classes": classes,
            "encoder": given.encoder.name,
            "scheme": dict(given.encoder.settings),
        },
        f"{facts.id}, version {facts.version}, {facts.kind}",
        f"SHA-256: {facts.sha256}",
        f"{count:,} encodings of {' x '.join(map(str, shape))}, {given.copies} of an image",
        f"{classes} classes; labels sum to {given.labels.sum(1).mean():.3f}",
        f"{given.encoder}",
    )


@challenge.command()
@command
def score(
    submission: Annotated[
        Path, typer.Argument(help="Folder with decryption.npy and submission.json.")
    ],
    truth: TruthFolder,
    leaderboard: Annotated[
        Path | None, typer.Option(help="CSV file that the entry is added to.")
    ] = None,
) -> None:
    """Score a submission against the truth.

    For comparison, the score of a blank submission is shown, whose pictures have a single color.
    """
    from instahide.audit.challenge.challenge import ChallengeTruth
    from instahide.audit.challenge.leaderboard import enter, entry
    from instahide.audit.challenge.score import score_blank, score_submission
    from instahide.audit.challenge.submission import Submission

    opened, given = ChallengeTruth.open(truth), Submission.open(submission)
    found = score_submission(given, opened)
    if leaderboard is not None:
        enter(leaderboard, entry(given.facts, found))
    figures, blank = asdict(found), asdict(score_blank(opened))
    table = Table("figure", "submission", "blank")
    for figure, value in figures.items():
        table.add_row(figure, f"{value:.4g}", f"{blank[figure]:.4g}")
    title = f"{given.facts.attack}, version {given.facts.version}, on {opened.facts.id}"
    out.results({**given.facts.model_dump(), **figures, "blank": blank}, title, table)


challenge.command()(baselines)
challenge.command()(leaderboard)

"""`instahide challenge make | score | info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from instahide.cli.console import explained, out
from instahide.cli.options import C1, C2, MOST, Pool, Size, Source

challenge = typer.Typer(
    name="challenge",
    help="Challenges like the authors': made for attackers, scored against a truth kept apart.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(help="Folder of the challenge.")]
TruthFolder = Annotated[Path, typer.Option("--truth", help="Folder of the truth, kept apart.")]


@challenge.command()
@explained
def make(
    source: Source,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for attackers.")],
    truth: TruthFolder,
    public: Pool = "photos",
    images: Annotated[int, typer.Option(help="Private images, at most.", min=1)] = 100,
    copies: Annotated[int, typer.Option(help="Encodings of each.", min=1, max=MOST)] = 50,
    k: Annotated[int, typer.Option(help="Images in a mix.")] = 6,
    private_k: Annotated[int, typer.Option(help="Private images in a mix.")] = 2,
    c1: C1 = None,
    c2: C2 = None,
    size: Size = None,
) -> None:
    """Encrypt images into a challenge; the images and the keys go into the truth's folder.

    Whoever has the challenge can recover the images: use none that are really private.
    """
    import numpy as np

    from instahide.audit.challenge.challenge import make_challenge
    from instahide.data import open_images, open_pool
    from instahide.encryption.scheme import Scheme

    bounds = {name: value for name, value in (("c1", c1), ("c2", c2)) if value is not None}
    scheme = Scheme.cross(k, private_k=private_k, **bounds)
    table = open_images(source, size=size)
    chosen = np.linspace(0, len(table) - 1, min(images, len(table))).astype(np.int64)
    pool = open_pool(public, table.shape) if scheme.public_k else None
    made = make_challenge(
        table.subset(chosen), pool, out_folder, truth, scheme=scheme, copies=copies
    )
    out.print(f"{made}: {out_folder}; the truth: {truth}")


@challenge.command()
@explained
def score(
    submission: Annotated[Path, typer.Argument(help="decryption.npy, N x H x W x C.")],
    truth: TruthFolder,
    name: Annotated[str, typer.Option(help="Whose entry this is.")] = "",
    leaderboard: Annotated[
        Path | None, typer.Option(help="CSV file that the entry is added to.")
    ] = None,
) -> None:
    """Score a submission against the truth.

    Prints JSON: the figures of the submission, and under "blank" what a blank submission gets, of
    pictures that have one colour each.
    """
    from dataclasses import asdict

    from instahide.audit.challenge.challenge import ChallengeTruth
    from instahide.audit.challenge.leaderboard import enter, score_blank, score_submission

    opened = ChallengeTruth.open(truth)
    found = score_submission(submission, opened)
    if leaderboard is not None:
        enter(leaderboard, name, found)
    print(json.dumps({**asdict(found), "blank": asdict(score_blank(opened))}))


@challenge.command()
@explained
def info(folder: Folder) -> None:
    """Say what a challenge holds; the authors' own two files will do."""
    from instahide.audit.challenge.challenge import Challenge

    given = Challenge.open(folder)
    count, *shape = given.encodings.shape
    out.print(f"{count:,} encodings of {' x '.join(map(str, shape))}, {given.copies} of an image")
    out.print(f"{given.labels.shape[1]} classes; labels sum to {given.labels.sum(1).mean():.3f}")
    out.print(f"{given.scheme}")

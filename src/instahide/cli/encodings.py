"""The commands that make, check and count folders of encodings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import typer

from instahide.cli.arguments import LedgerFile, Pool, Size, SkipBad, Source
from instahide.cli.console import explained

Folder = Annotated[str, typer.Argument(help="A folder of encodings, or its URL.")]


@explained
def encrypt(
    source: Source,
    out_folder: Annotated[str, typer.Option("--out", help="Folder or URL for the encodings.")],
    public: Pool = "photos",
    copies: Annotated[int, typer.Option(help="Encodings of each image.")] = 1,
    participant: Annotated[
        str, typer.Option(help="Whose images these are; everyone sees it.")
    ] = "",
    scheme: Annotated[
        Literal["inside", "cross", "mixup", "plain"], typer.Option(help="How images are mixed.")
    ] = "cross",
    k: Annotated[int, typer.Option(help="Images in a mix.")] = 4,
    private_k: Annotated[int | None, typer.Option(help="Private images in a mix.")] = None,
    c1: Annotated[float | None, typer.Option(help="Bound of every coefficient.")] = None,
    c2: Annotated[float | None, typer.Option(help="Least sum of the private ones.")] = None,
    labels: Annotated[
        Literal["soft", "renormalised"] | None, typer.Option(help="Labels of a mix.")
    ] = None,
    law: Annotated[
        Literal["half-normal", "dirichlet"] | None, typer.Option(help="Law of the coefficients.")
    ] = None,
    values: Annotated[
        Literal["float32", "float16", "uint8"], typer.Option(help="How values are stored.")
    ] = "float16",
    mean: Annotated[
        str | None, typer.Option(help="Agreed mean of pixel / 255, as 0.49,0.48,0.45.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Agreed standard deviation.")] = None,
    max_exposure: Annotated[
        int | None, typer.Option(help="End before an image is in more encodings than this.")
    ] = None,
    ledger: LedgerFile = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the finished shards in --out, and go on.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say size, time and exposure, and stop.")
    ] = False,
    engine: Annotated[
        Literal["threads", "ray"], typer.Option(help="This machine, or a Ray cluster.")
    ] = "threads",
    size: Size = None,
    skip_bad: SkipBad = False,
) -> None:
    """Encrypt images into a folder that anybody can train on.

    Example: instahide encrypt mnist-5k --copies 10 --out encoded
    """
    from instahide.cli import publishing

    mixing = {
        "scheme": scheme, "k": k, "private_k": private_k, "c1": c1, "c2": c2, "labels": labels,
        "law": law,
    }  # fmt: skip
    publication = publishing.opened(
        source,
        public,
        scheme=mixing,
        copies=copies,
        values=values,
        participant=participant,
        normalisation=(mean, std),
        size=size,
        skip_bad=skip_bad,
    )
    if dry_run:
        publishing.show_plan(publication, out_folder, ledger, limit=max_exposure)
    else:
        publishing.run_encryption(
            publication, out_folder, ledger, engine=engine, limit=max_exposure, resume=resume
        )


@explained
def verify(folder: Folder) -> None:
    """Check every byte and every value of a folder of encodings."""
    from instahide.cli.publishing import verify_folder

    verify_folder(folder)


@explained
def info(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Say what a folder of encodings holds, and how often it shows an image."""
    from instahide.cli.publishing import show_info

    show_info(folder, as_json)


#: In the order of the help text.
COMMANDS: tuple[Callable[..., None], ...] = (encrypt, verify, info)

"""The commands that make, check and count folders of encodings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from instahide.cli.console import explained
from instahide.cli.options import (
    C1,
    C2,
    Classes,
    Delta,
    Distribution,
    LabelMode,
    LedgerFile,
    Noise,
    Pool,
    PrivateK,
    Size,
    SkipBad,
    Source,
)

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
    private_k: PrivateK = None,
    c1: C1 = None,
    c2: C2 = None,
    label_mode: LabelMode = None,
    coefficient_distribution: Distribution = None,
    noise: Noise = None,
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
    delta: Delta = 1e-5,
    size: Size = None,
    skip_bad: SkipBad = False,
    classes: Classes = None,
) -> None:
    """Encrypt images into a folder that anybody can train on.

    Example: instahide encrypt mnist-5k --copies 10 --out encoded
    """
    from instahide.cli import encrypt

    mixing = {
        "scheme": scheme, "k": k, "private_k": private_k, "c1": c1, "c2": c2,
        "label_mode": label_mode,
        "coefficient_distribution": coefficient_distribution, "noise": noise,
    }  # fmt: skip
    publication = encrypt.opened(
        source,
        public,
        scheme=mixing,
        copies=copies,
        values=values,
        participant=participant,
        normalization=(mean, std),
        size=size,
        skip_bad=skip_bad,
        classes=classes,
    )
    if dry_run:
        encrypt.show_plan(publication, out_folder, ledger, limit=max_exposure, delta=delta)
    else:
        encrypt.run_encryption(
            publication,
            out_folder,
            ledger,
            engine=engine,
            limit=max_exposure,
            resume=resume,
            delta=delta,
        )


@explained
def verify(folder: Folder) -> None:
    """Check every byte and every value of a folder of encodings."""
    from instahide.cli.encrypt import verify_folder

    verify_folder(folder)


@explained
def info(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
    delta: Delta = 1e-5,
) -> None:
    """Say what a folder of encodings holds, and how often it shows an image."""
    from instahide.cli.encrypt import show_info

    show_info(folder, as_json, delta)


@explained
def ledger(
    path: LedgerFile = None,
    data: Annotated[
        str | None, typer.Option(help="Only the images of this folder, file or URL.")
    ] = None,
    size: Size = None,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    delta: Delta = 1e-5,
) -> None:
    """Say how often images have gone out, in all runs together, and what that means.

    Example: instahide ledger --data mnist-5k
    """
    from instahide.cli.ledger import show_ledger

    show_ledger(path, data, size, skip_bad, as_json, delta)


#: The formats of `instahide.encodings.convert`.
Format = Annotated[
    Literal["challenge", "webdataset", "huggingface", "parquet"],
    typer.Option("--format", help="Format of the files."),
]


@explained
def export(
    folder: Folder,
    form: Format,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
) -> None:
    """Write a folder of encodings in a format of others.

    Example: instahide export encoded --format webdataset --out tars
    """
    from instahide.cli.convert import run_export

    run_export(folder, form, out_folder)


@explained
def import_(
    source: Annotated[Path, typer.Argument(help="A folder of files in the format.")],
    form: Format,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the encodings.")],
    scheme: Annotated[
        Literal["inside", "cross", "mixup", "plain"] | None,
        typer.Option(help="How images were mixed; this and the rest: without a manifest only."),
    ] = None,
    k: Annotated[int | None, typer.Option(help="Images in a mix.")] = None,
    private_k: PrivateK = None,
    c1: C1 = None,
    c2: C2 = None,
    label_mode: LabelMode = None,
    coefficient_distribution: Distribution = None,
    noise: Noise = None,
    private_images: Annotated[int | None, typer.Option(help="How many were encrypted.")] = None,
    copies: Annotated[int | None, typer.Option(help="Encodings of each image.")] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of pixel / 255 before it.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation before it.")] = None,
    participant: Annotated[str | None, typer.Option(help="Whose images these are.")] = None,
) -> None:
    """Make a folder of encodings from files in a format of others.

    Example: instahide import tars --format webdataset --out encoded
    """
    from instahide.cli.convert import run_import

    mixing = {
        "scheme": scheme, "k": k, "private_k": private_k, "c1": c1, "c2": c2,
        "label_mode": label_mode,
        "coefficient_distribution": coefficient_distribution, "noise": noise,
    }  # fmt: skip
    told = {
        "private_images": private_images, "copies": copies, "mean": mean, "std": std,
        "participant": participant,
    }  # fmt: skip
    run_import(source, form, out_folder, mixing, told)


#: In the order of the help text.
COMMANDS: tuple[Callable[..., None], ...] = (
    encrypt,
    verify,
    info,
    ledger,
    export,
    import_,
)

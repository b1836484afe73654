"""`instahide encrypt`, `verify` and `info`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.filesize import decimal
from rich.table import Table

from instahide.cli.console import WARNING, err, out
from instahide.cli.options import numbers
from instahide.cli.progress import progress_bar
from instahide.data import ImageTable, open_images, open_pool
from instahide.data.class_names import read_class_list
from instahide.data.image_source import has_repeats
from instahide.encodings.cost import estimate_cost
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.ledger import Ledger, Totals, default_ledger
from instahide.encodings.manifest import Manifest, Values
from instahide.encodings.privacy import folders_statement
from instahide.encodings.publish import Engine, Publication, publish, threads
from instahide.encryption.privacy import (
    DELTA,
    epsilon_of,
    epsilon_upper_bound,
    privacy_statement,
    require_delta,
)
from instahide.errors import DamagedFileError, InstaHideError, LedgerError
from instahide.training.settings import TrainSettings
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    from instahide.encryption.scheme import Scheme


#: What `Manifest.ended` means.
_STATES = {"all": "complete", "limit": "ended at its exposure limit", None: "not finished"}


def opened(
    source: str,
    public: str,
    *,
    scheme: dict[str, Any],
    copies: int,
    values: Values,
    participant: str,
    normalization: tuple[str | None, str | None],
    size: int | None,
    skip_bad: bool,
    classes: str | None,
) -> Publication:
    """Read the images and the pool of a publication."""
    wanted = {name: value for name, value in scheme.items() if value is not None}
    how: Scheme = TrainSettings.from_values(wanted, "The options").encryption()
    known = None if classes is None else read_class_list(classes)
    table = open_images(source, size=size, skip_bad=skip_bad, classes=known)
    images = _normalized(table, *normalization)
    pool = open_pool(public, images.shape) if how.public_k else None
    return Publication(images, pool, how, copies, values, participant)


def show_plan(
    publication: Publication,
    out_folder: str,
    ledger: Path | None,
    *,
    limit: int | None,
    delta: float,
) -> None:
    """Say what `run_encryption` would cost; nothing is written or counted."""
    images = publication.images
    known = _known(images, ledger)
    cost = estimate_cost(publication, known.counts, out_folder)
    statement = _beforehand(publication, float(known.losses.max(initial=0)), limit, delta)
    table = Table("what it comes to", "", show_header=False)
    table.add_row("encodings", f"{cost.encodings:,}")
    table.add_row("on disk, about", decimal(cost.bytes))
    table.add_row("time, about", str(timedelta(seconds=round(cost.seconds))))
    table.add_row("an image has been in", f"at most {cost.before:,} encodings")
    table.add_row("an image will be in", f"{cost.mean:,.1f} on average, about {cost.most:,} most")
    out.print(table)
    out.print(statement)
    if limit is not None and cost.most > limit:
        err.print(f"Note: it would end early, before an image is in more than {limit} encodings.")
    out.print(WARNING)


def _beforehand(publication: Publication, earlier: float, limit: int | None, delta: float) -> str:
    """What noise will guarantee of images of which ``earlier`` is the loss so far, at most."""
    images, scheme = publication.images, publication.scheme
    epsilon: float | None = epsilon_upper_bound(
        scheme, images.shape, images.std,
        copies=publication.copies, limit=limit, earlier=earlier, delta=delta,
    )  # fmt: skip
    scope = ", at most"
    if limit is None and has_repeats(images) and math.isfinite(earlier):
        # They go into more encodings than there are copies, and nobody knows how many.
        epsilon, scope = None, " before the ledger has counted, as some images are there twice"
    return privacy_statement(epsilon, delta, noise=bool(scheme.noise), scope=scope)


def _known(images: ImageTable, ledger: Path | None) -> Totals:
    """How often each different image has gone out; a ledger is not made for it."""
    path = ledger or default_ledger()
    if not path.exists():
        return Totals(np.zeros(len(images), np.int64), *np.zeros((2, len(images))))
    with Ledger.open(path) as opened_ledger:
        return opened_ledger.totals(images)


def run_encryption(
    publication: Publication,
    out_folder: str,
    ledger: Path | None,
    *,
    engine: str,
    limit: int | None,
    resume: bool,
    delta: float,
) -> None:
    """Encrypt into ``out_folder`` and say what came of it."""
    require_delta(delta)
    with (
        _hint_to_resume(),
        Ledger.open(ledger) as opened_ledger,
        progress_bar("encodings", publication.manifest().total) as advance,
    ):
        folder = publish(
            publication,
            out_folder,
            opened_ledger,
            engine=_engine(engine),
            resume=resume,
            limit=limit,
            progress=advance,
        )
        statement = _statement(publication, folder, opened_ledger.totals(publication.images), delta)
    if folder.manifest.ended == "limit":
        err.print(
            f"Note: ended before an image went into more than {limit} encodings: "
            f"{len(folder):,} of {folder.manifest.total:,} encodings are there."
        )
    out.print(f"{len(folder):,} encodings in {out_folder}")
    out.print(statement)
    out.print(WARNING)


def _statement(
    publication: Publication, folder: EncodedFolder, totals: Totals, delta: float
) -> str:
    """What noise guarantees of the images, as the ledger that counted them knows it.

    Raises:
        LedgerError: it has not counted what is in the folder.
    """
    if folder.manifest.ended == "all" and totals.counts.min() < publication.copies:
        raise LedgerError(
            f"The ledger does not know of all {publication.copies} encodings of each image that "
            f"are in {folder.location}.",
            "Restore the ledger that was in use, and do not publish the folder before.",
        )
    epsilon = epsilon_of(float(totals.losses.max()), delta)
    return privacy_statement(epsilon, delta, noise=bool(publication.scheme.noise))


def _engine(name: str) -> Engine:
    if name == "threads":
        return threads
    with requires_extra("Ray", "ray"):
        from instahide.encodings.ray.engine import on_ray
    return on_ray


def verify_folder(location: str) -> None:
    """Check every byte and value of a folder of encodings."""
    folder = EncodedFolder.open(location, partial=True)
    with progress_bar("encodings", len(folder)) as advance:
        problems = folder.verify(advance)
    if problems:
        raise DamagedFileError(
            " ".join([f"{location} is not as it was written.", *problems[:10]]),
            "Get it anew from whoever published it.",
        )
    state = _STATES[folder.manifest.ended]
    out.print(f"{location} is as it was written: {len(folder):,} encodings, {state}.")


def show_info(location: str, as_json: bool, delta: float = DELTA) -> None:
    """Print what a folder says of itself."""
    folder = EncodedFolder.open(location, partial=True)
    if as_json:
        out.print_json(folder.manifest.to_json().decode(), ensure_ascii=True)
        return
    table = Table("", "", show_header=False)
    for name, value in _facts(folder.manifest).items():
        table.add_row(name, value)
    statement = folders_statement([folder.manifest], delta)
    out.print(table)
    out.print(statement)
    out.print(WARNING)


def _facts(manifest: Manifest) -> dict[str, str]:
    scheme = manifest.encryption()
    exposures = len(manifest) * scheme.private_k / manifest.private_images
    return {
        "participant": manifest.participant or "(no name)",
        "created": f"{manifest.created} by {manifest.library}",
        "state": _STATES[manifest.ended],
        "encodings": f"{len(manifest):,} of {manifest.total:,}",
        "private images": f"{manifest.private_images:,}, {manifest.copies} copies each",
        "an image is in": f"{exposures:,.1f} of them on average",
        "scheme": ", ".join(f"{name} = {value}" for name, value in manifest.scheme.items()),
        "shape": " x ".join(map(str, manifest.shape)),
        "classes": f"{len(manifest.classes)}: {', '.join(manifest.classes[:20])}",
        "normalization": f"mean {_short(manifest.mean)}, std {_short(manifest.std)}",
        "values": f"{manifest.values}, at most {manifest.max_quantization_error:.2g} off",
        "shards": f"{len(manifest.shards)}, {decimal(sum(s.bytes for s in manifest.shards))}",
    }


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _normalized(images: ImageTable, mean: str | None, std: str | None) -> ImageTable:
    """The images under a normalization that participants agreed on, if they did."""
    if mean is None and std is None:
        return images
    if mean is None or std is None:
        raise InstaHideError("A normalization is a mean and a std.", "Give --mean and --std both.")
    means = numbers(mean)
    if not 0 <= min(means) <= max(means) <= 1:
        raise InstaHideError(
            f"A mean of {mean} is not of pixel / 255, which lies between 0 and 1.",
            "Divide --mean and --std of pixels from 0 to 255 by 255.",
        )
    return replace(images, mean=means, std=numbers(std))


@contextmanager
def _hint_to_resume() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("Stopped. What is finished stays; go on with the same command and --resume.")
        raise

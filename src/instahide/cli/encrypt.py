"""`instahide encrypt`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer
from pydantic import Field
from rich.filesize import decimal
from rich.table import Table

from instahide.cli.console import WARNING, notes, out, progress_bar
from instahide.cli.options import (
    ENCODER,
    LABEL_PANEL,
    MIXING_PANEL,
    Classes,
    Delta,
    EncoderSettings,
    LedgerFile,
    MixingOptions,
    Pool,
    Source,
    command,
    numbers,
    require_named_encoder,
    require_no_scheme,
)
from instahide.data import ImageTable, open_images, open_pool
from instahide.data.class_names import read_class_list
from instahide.data.duplicates.content_hash import all_unique
from instahide.data.labels import Task
from instahide.data.read_settings import ReadSettings
from instahide.encryption.scheme import Preset, Scheme
from instahide.errors import InstaHideError, LedgerError
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from instahide.encodings.cost import CostEstimate
    from instahide.encodings.folder import EncodedFolder
    from instahide.encodings.ledger.ledger import Totals
    from instahide.encodings.publish import Engine, Publication
    from instahide.encryption.encoders.base import InstanceEncoder


class EncryptOptions(ReadSettings, MixingOptions):
    """What `instahide encrypt` takes."""

    source: Source
    out: Annotated[str, typer.Option(help="Folder or URL for the encodings.")]
    public: Pool = "photos"
    classes: Classes = None
    mean: str | None = Field(None, description="agreed mean of pixel / 255, as 0.49,0.48,0.45")
    std: str | None = Field(None, description="agreed standard deviation")
    encoder: str | None = Field(None, description=ENCODER)
    encoder_settings: EncoderSettings = Field(default_factory=list)
    scheme: Preset = Field("cross", description="how images are mixed")
    k: int = Field(4, description="images in a mix")
    copies: int = Field(1, description="encodings of each image")
    participant: str = Field("", description="whose images these are; everyone sees it")
    values: Literal["float32", "float16", "uint8"] | None = Field(
        None, description="how values are stored; if omitted, float16, or float32 of other encoders"
    )
    max_exposure: int | None = Field(
        None, description="end before an image, or a group, is in more encodings than this"
    )
    min_mse: float | None = Field(
        None,
        description="end before the error floor of an image, or a group, is below this mean "
        "squared error of unbiased reconstructions, with pixels from 0 to 1; needs noise",
    )
    ledger: LedgerFile = None
    delta: Delta = 1e-5
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the finished shards in --out, and continue.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show size, time and exposure, and stop.")
    ] = False
    engine: Literal["threads", "ray"] = Field(
        "threads", description="run on this machine, or on a Ray cluster"
    )
    config: Annotated[
        Path | None,
        typer.Option(help="File of settings as for `instahide train`; options override it."),
    ] = None

    def with_config(self) -> Self:
        """These options, with the settings of the file where they are not given.

        Raises:
            InstaHideError: the file cannot be used, or asks for what only training does.
        """
        if self.config is None:
            return self
        from instahide.training.settings import TrainSettings
        from instahide.training.settings_file import require_named

        settings = TrainSettings.load(self.config)
        given = {name: getattr(self, name) for name in self.model_fields_set}
        # Of the network nothing is read.
        require_named(settings, {"model": settings.model, **given}, self.config)
        for name in ("crop_padding", "flip", "fresh_crops"):
            if getattr(settings, name):
                raise InstaHideError(
                    f"{self.config}: `{name}` is for images that are encrypted in every epoch.",
                    f"Leave out `{name}`: encodings in a folder are made without it.",
                )
        stated = settings.model_dump(exclude_unset=True, include=set(type(self).model_fields))
        return self.model_validate(stated | given)


PANELS = {
    "Data": ("public", "size", "skip_bad", "classes", "window", "rescale", "mean", "std"),
    "Labels": LABEL_PANEL,
    "Encryption": ("encoder", "encoder_settings", *MIXING_PANEL),
    "Exposure": ("max_exposure", "min_mse", "ledger", "delta"),
    "Output": ("out", "copies", "participant", "values"),
    "Execution": ("config", "dry_run", "resume", "engine"),
}


@command
def encrypt(options: Annotated[EncryptOptions, PANELS]) -> None:
    """Encrypt images into a folder of encodings that others can train on.

    Example: instahide encrypt mnist-5k --copies 10 --out encoded
    """
    options = options.with_config()
    publication = _opened(options)
    if options.dry_run:
        _show_cost(publication, options)
    else:
        _publish(publication, options)
    notes.print(WARNING)


def _opened(options: EncryptOptions) -> Publication:
    """The images and the pool of a publication."""
    from instahide.encodings.publish import Publication

    _method(options, "single-label")  # Refused before images are read.
    known = None if options.classes is None else read_class_list(options.classes)
    table = open_images(options.source, classes=known, **options.read_options())
    images = _normalized(table, options.mean, options.std)
    method = _method(options, images.task)
    pool = open_pool(options.public, images.shape) if method.uses_public else None
    values = options.values or ("float16" if isinstance(method, Scheme) else "float32")
    return Publication(images, pool, method, options.copies, values, options.participant)


def _method(options: EncryptOptions, task: Task) -> InstanceEncoder:
    """The scheme or the other encoder of the options.

    Raises:
        InstaHideError: it cannot be made, or both are given.
    """
    from instahide.encryption.encoders.registry import encoder_named, parse_settings

    require_named_encoder(options.encoder, options.encoder_settings)
    if options.encoder is None:
        return options.changed(options.scheme, options.k, task)
    require_no_scheme(options, (*MIXING_PANEL, "min_mse"))
    return encoder_named(options.encoder, parse_settings(options.encoder_settings))


def _show_cost(publication: Publication, options: EncryptOptions) -> None:
    """Print the cost of `_publish`; nothing is written or counted."""
    from instahide.encodings.cost import estimate_cost

    known, pictures = _known(publication.images, options)
    cost = estimate_cost(publication, known.counts, options.out, pictures)
    earlier = float(known.losses.max(initial=0))
    statements = _beforehand(publication, earlier, options, _uneven(publication, cost, pictures))
    table = Table("what it comes to", "", show_header=False)
    table.add_row("encodings", f"{cost.encodings:,}")
    table.add_row("on disk, about", decimal(cost.bytes))
    table.add_row("time, about", str(timedelta(seconds=round(cost.seconds))))
    unit = "an image" if publication.images.groups is None else "a group of images"
    table.add_row(f"{unit} has been in", f"at most {cost.before:,} encodings")
    table.add_row(f"{unit} will be in", f"{cost.mean:,.1f} on average, about {cost.most:,} most")
    if cost.private_in_pool:
        table.add_row("private images in the public pool", f"{cost.private_in_pool:,}")
    units = _units(publication.images)
    out.results(asdict(cost) | units | statements, table, *statements.values())
    limit = options.max_exposure
    if limit is not None and cost.most > limit:
        notes.print(f"Note: it would end early, before {unit} is in more than {limit} encodings.")


def _units(images: ImageTable) -> dict[str, int]:
    """The number of groups that exposure is counted for; empty if it is counted for images."""
    return {} if images.groups is None else {"groups": len(set(images.content_ids.tolist()))}


def _uneven(publication: Publication, cost: CostEstimate, pictures: NDArray[np.int64]) -> str:
    """Why images go into more encodings than there are copies and partners; empty if none does."""
    if cost.private_in_pool:
        return "as the public pool holds private images"
    if all_unique(pictures):
        return ""
    why = "there twice" if publication.images.groups is None else "of one group"
    return f"as some images are {why}"


def _beforehand(
    publication: Publication, earlier: float, options: EncryptOptions, uneven: str
) -> dict[str, str]:
    """What noise guarantees of a publication.

    Args:
        publication: what would be published.
        earlier: the largest loss of an image so far.
        options: the options of the command.
        uneven: why some images go into more encodings than others; empty if none does.

    Raises:
        InstaHideError: `min_mse` cannot be kept, or delta is not between 0 and 1.
    """
    from instahide.encodings.guarantees import folders_statements
    from instahide.encryption.guarantees.statements import Guarantees

    images, scheme = publication.images, publication.method
    if not isinstance(scheme, Scheme):
        limited = options.max_exposure is not None or bool(uneven)
        manifest = publication.manifest().model_copy(update={"limited": limited})
        return folders_statements([manifest], options.delta)
    limit, delta, noise = options.max_exposure, options.delta, bool(scheme.noise)
    most = _loss_limit(publication, scheme, options)
    bounds = Guarantees.beforehand(
        scheme, images.shape, images.std,
        copies=publication.copies, limit=limit, earlier=earlier, delta=delta,
    )  # fmt: skip
    if bounds.loss is not None and earlier <= most < bounds.loss:
        within = Guarantees.of(most, math.prod(images.shape), noise=noise, delta=delta)
        return within.statements(scope=_scope(images, options), at_most=True)
    if limit is None and uneven and math.isfinite(earlier):
        # They go into more encodings than there are copies, by an unknown number.
        unknown = Guarantees(noise, delta=delta)
        return unknown.statements(scope=f" before the ledger has counted, {uneven}")
    return bounds.statements(scope=_scope(images, options), at_most=True)


def _loss_limit(publication: Publication, scheme: Scheme, options: EncryptOptions) -> float:
    """The largest loss of an image that `min_mse` allows; infinite without it."""
    from instahide.encryption.guarantees.loss_limit import LossLimit

    if options.min_mse is None:
        return math.inf
    images = publication.images
    return LossLimit.for_min_mse(options.min_mse, scheme, images.shape, images.std).most


def _known(images: ImageTable, options: EncryptOptions) -> tuple[Totals, NDArray[np.int64]]:
    """The exposure of each distinct image or group, and `Ledger.pictures`.

    No ledger is created to read them, and nothing is entered.
    """
    import numpy as np

    from instahide.encodings.ledger.ledger import Ledger, Totals, default_ledger

    path = options.ledger or default_ledger()
    if not path.exists():
        distinct = len(np.unique(images.content_ids))
        none = Totals(np.zeros(distinct, np.int64), *np.zeros((2, distinct)))
        return none, images.content_ids
    with Ledger.open(path) as ledger:
        return ledger.totals(images), ledger.pictures(images)


def _publish(publication: Publication, options: EncryptOptions) -> None:
    from instahide.encodings.ledger.ledger import Ledger
    from instahide.encodings.publish import publish
    from instahide.encryption.privacy import require_delta

    require_delta(options.delta)
    with (
        _hint_to_resume(),
        Ledger.open(options.ledger) as ledger,
        progress_bar("encodings", publication.manifest().total) as advance,
    ):
        folder = publish(
            publication,
            options.out,
            ledger,
            engine=_engine(options.engine),
            resume=options.resume,
            limit=options.max_exposure,
            min_mse=options.min_mse,
            progress=advance,
        )
        totals = ledger.totals(publication.images)
        statements = _statements(publication, folder, totals, options)
    units = _units(publication.images)
    if folder.manifest.ended == "limit":
        notes.print(
            f"Note: ended before {'a group' if units else 'an image'} passed a limit "
            f"({_limits(options)}): {len(folder):,} of {folder.manifest.total:,} encodings exist."
        )
    out.results(
        {
            "folder": options.out,
            "encodings": len(folder),
            "ended": folder.manifest.ended,
            **units,
            **statements,
        },
        f"{len(folder):,} encodings in {options.out}",
        *[f"Exposure is counted for {groups:,} groups of images." for groups in units.values()],
        *statements.values(),
    )


def _limits(options: EncryptOptions) -> str:
    """The limits of the options, in words."""
    limits = {"--max-exposure": options.max_exposure, "--min-mse": options.min_mse}
    return ", ".join(f"{name} {value:g}" for name, value in limits.items() if value is not None)


def _statements(
    publication: Publication, folder: EncodedFolder, totals: Totals, options: EncryptOptions
) -> dict[str, str]:
    """What noise guarantees of the images, from the ledger that counted them.

    Raises:
        LedgerError: the ledger lacks encodings that are in the folder.
    """
    from instahide.encodings.guarantees import folders_statements
    from instahide.encryption.guarantees.statements import Guarantees

    if folder.manifest.ended == "all" and totals.counts.min() < publication.copies:
        raise LedgerError(
            f"The ledger does not know of all {publication.copies} encodings of each image that "
            f"are in {folder.location}.",
            "Restore the ledger that was in use, and do not publish the folder before.",
        )
    if not isinstance(publication.method, Scheme):
        # The ledger accounts for the noise of schemes alone.
        return folders_statements([folder.manifest], options.delta)
    images, noise = publication.images, bool(publication.method.noise)
    values, loss = math.prod(images.shape), float(totals.losses.max())
    found = Guarantees.of(loss, values, noise=noise, delta=options.delta)
    return found.statements(scope=_scope(images, options))


def _scope(images: ImageTable, options: EncryptOptions) -> str:
    """What a guarantee protects, if it is more than an image, and what it does not count."""
    from instahide.encodings.ledger.dp_sgd_history import uncounted
    from instahide.encodings.ledger.ledger import default_ledger

    group = "" if images.groups is None else ", for all images of a group together"
    return group + uncounted(options.ledger or default_ledger())


def _engine(name: str) -> Engine:
    from instahide.encodings.publish import threads

    if name == "threads":
        return threads
    with requires_extra("Ray", "ray"):
        from instahide.encodings.ray.engine import on_ray
    return on_ray


def _normalized(images: ImageTable, mean: str | None, std: str | None) -> ImageTable:
    """The images under the normalization of the options, if they state one."""
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
    """After Ctrl-C, print that finished shards are kept."""
    try:
        yield
    except KeyboardInterrupt:
        notes.print("Stopped. Finished shards stay; continue with the same command and --resume.")
        raise

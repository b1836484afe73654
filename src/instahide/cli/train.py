"""`instahide train`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from instahide.cli.console import WARNING, err, explained, notes, out
from instahide.cli.options import LABEL_PANEL, MIXING_PANEL, command
from instahide.training.settings import TrainSettings
from instahide.training.settings_file import require_named

if TYPE_CHECKING:
    from instahide.training.distributed.processes import Processes
    from instahide.training.trainer import Trainer

PANELS = {
    "Data": (
        "test", "public", "fresh_crops", "size", "skip_bad", "test_share", "window", "rescale",
    ),
    "Labels": LABEL_PANEL,
    "Encryption": (
        "encoder", "encoder_settings", *MIXING_PANEL, "copies", "crop_padding", "flip",
    ),
    "Exposure": ("ledger", "max_exposure", "min_mse"),
    "Network": ("model", "weights", "sign_invariant", "seed"),
    "Training": (
        "epochs", "batch_size", "optimizer", "lr", "weight_decay", "momentum", "schedule", "ema",
        "patience", "class_weights", "positive_weights", "precision", "device",
    ),
    "Encrypted test queries": ("queries", "query_coefficient"),
    "Calibration": ("calibration_share",),
}  # fmt: skip


@command
def train(
    settings: Annotated[TrainSettings, PANELS],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path(
        "runs/run"
    ),
    config: Annotated[
        Path | None,
        typer.Option(help="YAML, TOML or JSON file of settings; options override it."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, under new keys.")
    ] = False,
) -> None:
    """Train a network on encrypted images, or on folders of encodings.

    Examples: instahide train mnist-5k --scheme cross --k 4, and
    instahide train encoded-by-anna encoded-by-ben --test fashion-mnist
    """
    from instahide.training.distributed.processes import launch

    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    if len(given.get("data", ())) == 1:
        # A single source is no list of folders.
        given["data"] = given["data"][0]
    with launch() as processes:
        if not processes.main:
            # Rank 0 speaks for all.
            out.quiet = err.quiet = notes.quiet = True
        # An error is printed before any process leaves, since that ends the others.
        explained(_train)(processes, given, out_folder, config, resume)


def _train(
    processes: Processes,
    given: Mapping[str, object],
    folder: Path,
    config: Path | None,
    resume: bool,
) -> None:
    from instahide.training.progress import Progress, progress_reporter
    from instahide.training.trainer import start

    shown = progress_reporter(notes) if processes.main else nullcontext(Progress())
    with shown as progress, processes.fail_together():
        settings = _settings(given, folder, config, resume)
        job = start(settings, folder, resume=resume, progress=progress, processes=processes)
    statements = _statements(job)
    out.results(
        {
            "folder": folder,
            "metrics": job.metrics,
            "images_per_second": job.history[-1].images_per_second,
            "exposure": job.facts.get("exposure"),
            **statements,
        },
        _title(job),
        _table(job),
        *statements.values(),
        f"Results, network and settings: {folder}",
    )
    if job.material.scheme is None or job.material.scheme.k > 1:
        notes.print(WARNING)


def _settings(
    given: Mapping[str, object], folder: Path, config: Path | None, resume: bool
) -> TrainSettings:
    """Those of ``config``, or of the resumed run, with ``given`` on top.

    Raises:
        InstaHideError: the file cannot be used, or names code of another package to run.
    """
    own = folder / "settings.json"
    source = own if resume and own.exists() and config is None else config
    settings = TrainSettings.load(source) if source else TrainSettings.from_values({})
    require_named(settings, given, source)
    if config is not None and not settings.pooled:
        settings = _for_folders(settings, given.get("data", settings.data))
    return settings.merged(given)


def _for_folders(settings: TrainSettings, data: object) -> TrainSettings:
    """The settings of a file; if ``data`` are folders of encodings, these were made as it says."""
    from instahide.encodings.folder import EncodedFolder
    from instahide.training.data.compatibility import require_made_as
    from instahide.training.data.pooled import holds_encodings

    sources = data if isinstance(data, list) else [str(data)]
    if not all(map(holds_encodings, sources)):
        return settings
    folders = [EncodedFolder.open(source) for source in sources]
    return require_made_as(settings, folders).merged({"data": sources})


def _table(job: Trainer) -> Table:
    from instahide.training.metrics import as_text

    table = Table()
    table.add_column("measured")
    table.add_column("value", justify="right")
    for name, share in job.metrics.items():
        table.add_row(name.replace("_", " "), as_text(name, share))
    if not job.metrics:
        table.add_row("accuracy", "none: no --test")
    speed = job.history[-1].images_per_second
    table.add_row("training images/s", f"{speed:,.0f}")
    if "exposure" in job.facts:
        exposure = job.facts["exposure"]
        least, most = exposure["least"], exposure["most"]
        table.add_row(
            "encodings that an image, or its group, has gone into, ever", f"{least} to {most}"
        )
    return table


def _statements(job: Trainer) -> dict[str, str]:
    """What noise guarantees of the images that were trained on."""
    from instahide.encodings.guarantees import folders_statements
    from instahide.encodings.ledger.dp_sgd_history import uncounted
    from instahide.encodings.ledger.ledger import default_ledger
    from instahide.encryption.guarantees.statements import Guarantees
    from instahide.encryption.privacy import privacy_statement
    from instahide.training.data.pooled import PooledData

    material = job.material
    if isinstance(material, PooledData):
        return folders_statements([folder.manifest for folder in material.folders])
    guarantee = job.facts.get("guarantee", {})
    if material.scheme is None:
        # The ledger accounts for the noise of schemes alone. JSON knows no infinity: null is it.
        if not guarantee:
            uneven = ", as some images are in more encodings than others"
            said = privacy_statement(None, noise=True, scope=uneven)
            return {"differential_privacy": said}
        epsilon = guarantee["epsilon"]
        known = math.inf if epsilon is None else epsilon
        said = privacy_statement(known, noise=epsilon is not None, scope=", by this run")
        return {"differential_privacy": said}
    loss, values = guarantee.get("loss"), math.prod(material.card.shape)
    noise = bool(material.scheme.noise)
    found = Guarantees.of(math.inf if loss is None else loss, values, noise=noise)
    ledger = Path(job.settings.ledger) if job.settings.ledger else default_ledger()
    return found.statements(scope=uncounted(ledger))


def _title(job: Trainer) -> str:
    from instahide.training.data.pooled import PooledData

    material, settings = job.material, job.settings
    if isinstance(material, PooledData):
        folders = material.folders
        size = f"{sum(map(len, folders)):,} encodings"
        return f"{size} in {len(folders)} folder{'s' if len(folders) > 1 else ''}"
    if settings.encoder is not None:
        return ", ".join([str(settings.data), settings.encoder, *(settings.encoder_settings or ())])
    return f"{settings.data}, {settings.scheme}, k = {settings.encryption().k}"

"""`instahide train`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.table import Table

from instahide.cli.console import WARNING, err, explained, out
from instahide.encodings.privacy import folders_statement
from instahide.encryption.privacy import DELTA, privacy_statement
from instahide.training.data.pooled import PooledData
from instahide.training.distributed.ddp import joined
from instahide.training.distributed.process_group import World
from instahide.training.progress import Progress, progress_reporter
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer, start


def run_training(given: Mapping[str, Any], folder: Path, config: Path | None, resume: bool) -> None:
    """Train by the settings of ``config`` with ``given`` on top, in ``folder``.

    A resumed run keeps the settings it has, so that nothing needs to be typed again. Under
    `torchrun` the processes train together, and rank 0 speaks for all.
    """
    with joined() as world:
        out.quiet = err.quiet = not world.main
        # What is wrong is said before any process leaves, since that ends the others.
        explained(_train)(world, given, folder, config, resume)


def _train(
    world: World, given: Mapping[str, Any], folder: Path, config: Path | None, resume: bool
) -> None:
    shown = progress_reporter() if world.main else nullcontext(Progress())
    with shown as progress, world.together():
        settings = _settings(given, folder, config, resume)
        job = start(settings, folder, resume=resume, progress=progress, world=world)
    out.print(_title(job))
    out.print(_table(job))
    out.print(_privacy(job))
    if job.material.scheme.k > 1:
        out.print(WARNING)
    out.print(f"Results, network and settings: {folder}")


def _settings(
    given: Mapping[str, Any], folder: Path, config: Path | None, resume: bool
) -> TrainSettings:
    own = folder / "settings.json"
    source = own if resume and own.exists() and config is None else config
    settings = TrainSettings.load(source) if source else TrainSettings.from_values({})
    return settings.merged(given)


def _table(job: Trainer) -> Table:
    table = Table()
    table.add_column("measured")
    table.add_column("value", justify="right")
    for name, share in job.metrics.items():
        table.add_row(name.replace("_", " "), f"{share:.1%}")
    if not job.metrics:
        table.add_row("accuracy", "none: no --test")
    speed = job.history[-1].images_per_second
    table.add_row("training images/s", f"{speed:,.0f}")
    if "exposure" in job.facts:
        exposure = job.facts["exposure"]
        least, most = exposure["least"], exposure["most"]
        table.add_row("encodings that an image has gone into, ever", f"{least} to {most}")
    return table


def _privacy(job: Trainer) -> str:
    """What noise guarantees of the images that were trained on."""
    material = job.material
    if isinstance(material, PooledData):
        return folders_statement([folder.manifest for folder in material.folders])
    guarantee = job.facts.get("guarantee", {"epsilon": None, "delta": DELTA})
    # JSON knows no infinity: the ledger says null for it.
    epsilon = math.inf if guarantee["epsilon"] is None else guarantee["epsilon"]
    return privacy_statement(epsilon, guarantee["delta"], noise=bool(material.scheme.noise))


def _title(job: Trainer) -> str:
    material, settings = job.material, job.settings
    if isinstance(material, PooledData):
        folders = material.folders
        size = f"{sum(map(len, folders)):,} encodings"
        return f"{size} in {len(folders)} folder{'s' if len(folders) > 1 else ''}"
    return f"{settings.data}, {settings.scheme}, k = {material.scheme.k}"

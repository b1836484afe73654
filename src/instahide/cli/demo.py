"""`instahide demo`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from instahide.cli.console import WARNING, notes, out
from instahide.cli.options import command
from instahide.cli.show import ShowOptions, draw_picture
from instahide.training.settings import TrainSettings

_DATA = "mnist-5k"
_RUNS: dict[str, dict[str, str | int]] = {
    "plain": {"scheme": "plain"},
    "cross, k = 4": {"scheme": "cross", "k": 4},
}


@command
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path(
        "runs/demo"
    ),
    epochs: Annotated[int, typer.Option(help="Epochs of each of the two runs.")] = 24,
) -> None:
    """Train on plain and on encrypted digits, and compare the accuracies.

    Also draws the encryption. An earlier demonstration in --out is replaced.
    """
    table = Table(title=f"{_DATA}: accuracy on 1,000 test images, {epochs} epochs")
    for column in ("trained on", "plain queries", "encrypted queries"):
        table.add_column(column, justify="left" if column == "trained on" else "right")
    results: dict[str, object] = {}
    for title, values in _RUNS.items():
        notes.print(f"Training: {title}")
        settings = TrainSettings.from_values({"data": _DATA, "epochs": epochs, **values})
        metrics = _trained(settings, out_folder / settings.scheme)
        results[settings.scheme] = metrics
        asked = metrics.get("encrypted_accuracy")
        table.add_row(title, f"{metrics['accuracy']:.1%}", "-" if asked is None else f"{asked:.1%}")
    picture = out_folder / "encryption.png"
    draw_picture(ShowOptions(source=_DATA, out=picture))
    out.results(
        results | {"picture": picture},
        table,
        f"Picture: {picture}",
        f"Results: {out_folder}/plain/results.json, {out_folder}/cross/results.json",
    )
    notes.print(WARNING)


def _trained(settings: TrainSettings, folder: Path) -> dict[str, float]:
    from instahide.training.progress import progress_reporter
    from instahide.training.trainer import start

    if (folder / "settings.json").exists():
        shutil.rmtree(folder)
    with progress_reporter(notes) as progress:
        return start(settings, folder, progress=progress).metrics

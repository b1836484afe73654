"""`instahide demo`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.table import Table

from instahide.cli.console import WARNING, err, out
from instahide.cli.show import draw_picture
from instahide.training.progress import progress_reporter
from instahide.training.settings import TrainSettings
from instahide.training.trainer import start

_DATA = "mnist-5k"
_RUNS: dict[str, dict[str, Any]] = {
    "plain": {"scheme": "plain"},
    "cross, k = 4": {"scheme": "cross", "k": 4},
}


def run_demo(folder: Path, epochs: int) -> None:
    """Train twice, print both accuracies side by side, and draw the encryption.

    An earlier demonstration in ``folder`` is replaced.
    """
    table = Table(title=f"{_DATA}: accuracy on 1,000 test images, {epochs} epochs")
    for column in ("trained on", "plain queries", "encrypted queries"):
        table.add_column(column, justify="left" if column == "trained on" else "right")
    for title, values in _RUNS.items():
        settings = TrainSettings.from_values({"data": _DATA, "epochs": epochs, **values})
        run = folder / values["scheme"]
        if (run / "settings.json").exists():
            shutil.rmtree(run)
        err.print(f"Training: {title}")
        with progress_reporter() as progress:
            metrics = start(settings, run, progress=progress).metrics
        asked = metrics.get("encrypted_accuracy")
        table.add_row(title, f"{metrics['accuracy']:.1%}", "-" if asked is None else f"{asked:.1%}")
    picture = folder / "encryption.png"
    draw_picture(_DATA, "photos", "cross", 4, 0.0, 4, None, False, picture)
    out.print(table)
    out.print(WARNING)
    out.print(f"Picture: {picture}")
    out.print(f"Results: {folder}/plain/results.json, {folder}/cross/results.json")

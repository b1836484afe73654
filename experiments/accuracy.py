"""Measure test accuracy with plain training and with InstaHide, on plain and encrypted images.

    python -m experiments.accuracy --data fashion-mnist --schemes plain,inside-4,cross-4,cross-6

A scheme that ends in ``-signed`` trains without the sign-invariant stem. The data ``color-patches``
are those of `experiments.color_patches`, in smaller batches. Each finished run adds
one row to the CSV file; runs that the file already contains are skipped, and an interrupted run
continues from its last epoch. The last line printed is a JSON object with the means over seeds and
the drops from plain training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

from rich.console import Console

from experiments import color_patches
from experiments.command_line import parsed
from experiments.records import by_scheme, percent, rows_of, run_missing
from instahide.training.progress import Lines
from instahide.training.settings import TrainSettings
from instahide.training.trainer import start

FIELDS = [
    "data",
    "scheme",
    "seed",
    "epochs",
    "model",
    "plain_accuracy",
    "encrypted_accuracy",
    "curve",
    "seconds",
    "images_per_second",
    "threads",
    "precision",
    "torch",
    "python",
    "platform",
    "commit",
]


def settings_of(
    data: str, scheme: str, seed: int, epochs: int, model: str = "small", precision: str = "auto"
) -> TrainSettings:
    """Return the settings of a scheme such as ``cross-4``, a kind and k.

    With ``cross-4-signed`` the network sees signs.
    """
    kind, *rest = scheme.split("-")
    values = {"data": data, "scheme": kind, "seed": seed, "epochs": epochs, "model": model}
    if data == color_patches.NAME:
        values |= {"data": color_patches.source(), "batch_size": color_patches.BATCH_SIZE}
    values["precision"] = precision
    if rest:
        values["k"] = int(rest[0])
    if rest[1:] == ["signed"]:
        values["sign_invariant"] = False
    return TrainSettings.from_values(values)


def run(settings: TrainSettings, folder: Path) -> dict[str, object]:
    """Train in ``folder``, or continue the run there; ``seconds`` is the training time."""
    job = start(settings, folder, resume=True, progress=Lines(Console()))
    seconds = sum(record.seconds for record in job.history)
    asked = job.metrics.get("encrypted_accuracy")
    curve = [percent(record.metrics["accuracy"]) for record in job.history]
    return {
        "plain_accuracy": percent(job.metrics["accuracy"]),
        "encrypted_accuracy": None if asked is None else percent(asked),
        "curve": " ".join(map(str, curve)),
        "seconds": round(seconds, 1),
        "images_per_second": round(len(job.material.split.train) * settings.epochs / seconds),
        "precision": str(job.precision).removeprefix("torch."),
    }


def summary(rows: list[dict[str, str]], data: str, epochs: int) -> dict[str, object]:
    figures = by_scheme(rows, data, epochs, "plain_accuracy", 2)
    mine = [row for row in rows if (row["data"], row["epochs"]) == (data, str(epochs))]
    for scheme in {row["scheme"] for row in mine}:
        asked = [row["encrypted_accuracy"] for row in mine if row["scheme"] == scheme]
        figures[scheme]["encrypted"] = round(mean(map(float, asked)), 2) if all(asked) else None
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist-5k")
    parser.add_argument("--schemes", default="plain,inside-4,cross-4,cross-6")
    parser.add_argument("--seeds", default="0", help="for instance 0,1,2")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--model", default="small", help="small, or resnet18 as in the paper")
    parser.add_argument("--precision", default="auto", help="of the network's arithmetic")
    parser.add_argument("--out", type=Path, help="a CSV file; by default one for each network")
    options = parsed(parser)
    if options.out is None:
        options.out = Path("experiments/results/accuracy.csv")
        if options.model != "small":
            options.out = options.out.with_stem(f"accuracy-{options.model}")

    def measure(scheme: str, seed: int, folder: Path) -> dict[str, object]:
        settings = settings_of(
            options.data, scheme, seed, options.epochs, options.model, options.precision
        )
        return {"model": settings.model, **run(settings, folder)}

    run_missing(options.out, FIELDS, vars(options), (options.data, options.epochs), measure)
    print(json.dumps(summary(rows_of(options.out), options.data, options.epochs)))


if __name__ == "__main__":
    main()

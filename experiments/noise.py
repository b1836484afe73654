"""Measure the epsilon and the accuracy for several noise levels sigma.

    python -m experiments.noise --data mnist-5k --noise 0,1,3,10,30,100

Encodings are published once, `copies` of each image, so the number of epochs does not change
epsilon; the ledger has the squared coefficients. Each run adds a row to the CSV file; runs that the
file already contains are skipped. The last line printed is a JSON object: accuracy and epsilon at
each sigma.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.command_line import parsed
from experiments.records import add, percent, rows_of, surroundings
from instahide.data import ImageTable, Split, open_split
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish, threads
from instahide.encryption.privacy import (
    DELTA,
    epsilon_of,
    epsilon_upper_bound,
    epsilon_with_labels_hidden,
    sensitivity,
)
from instahide.encryption.scheme import Scheme
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer

SETTING = ("data", "k", "copies", "noise", "epochs", "seed")
FIELDS = [
    *SETTING,
    "images",
    "accuracy",
    "largest_class",
    "sensitivity",
    "squares",
    "delta",
    "epsilon",
    "epsilon_beforehand",
    "epsilon_with_labels_hidden",
    "noise_for_1",
    "noise_for_8",
    "seconds",
    "threads",
    "torch",
    "python",
    "platform",
    "commit",
]


def shift_for(epsilon: float) -> float:
    """Return the largest mu whose epsilon at `DELTA` is at most ``epsilon``."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        if epsilon_of(middle**2, DELTA) <= epsilon:
            low = middle
        else:
            high = middle
    return low


def guarantees(
    scheme: Scheme, images: ImageTable, copies: int, squares: float
) -> dict[str, object]:
    """Return the guarantees for the image with the largest sum of squared coefficients."""
    apart = sensitivity(images.shape, images.std)
    needed = {f"noise_for_{e}": apart * squares**0.5 / shift_for(e) for e in (1, 8)}
    figures = {"sensitivity": apart, "squares": squares, **needed}
    if scheme.noise:
        about = scheme, images.shape, images.std
        figures |= {
            "epsilon": epsilon_of(squares * (apart / scheme.noise) ** 2, DELTA),
            "epsilon_beforehand": epsilon_upper_bound(*about, copies=copies),
            "epsilon_with_labels_hidden": epsilon_with_labels_hidden(
                *about, images=len(images), copies=copies
            ),
        }
    rounded: dict[str, object] = {name: float(f"{value:.6g}") for name, value in figures.items()}
    return {**rounded, "delta": DELTA}


def published_and_trained(
    split: Split, scheme: Scheme, copies: int, epochs: int, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Publish, train, and test on plain images.

    Returns:
        The accuracy, and the sum of the squared coefficients of each training image.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        publication = Publication(split.train, None, scheme, copies, "float32")
        with Ledger.open(root / "ledger.sqlite") as ledger:
            publish(publication, root / "encoded", ledger, engine=threads)
            squares = ledger.totals().squares
        names = np.asarray(split.test.classes)[split.test.labels]
        np.savez(root / "test.npz", x=split.test.pixels, y=names)
        values = {"data": [str(root / "encoded")], "test": str(root / "test.npz")}
        settings = TrainSettings.from_values({**values, "epochs": epochs, "seed": seed})
        job = Trainer.open(settings)
        job.run()
    return float(job.metrics["accuracy"]), squares


def measure(data: str, scheme: Scheme, copies: int, epochs: int, seed: int) -> dict[str, object]:
    """Return accuracy and guarantees of one run."""
    split = open_split(data)
    started = time.perf_counter()
    accuracy, each = published_and_trained(split, scheme, copies, epochs, seed)
    squares = float(each.max())
    return {
        "images": len(split.train),
        "accuracy": percent(accuracy),
        "largest_class": percent(np.bincount(split.test.labels).max() / len(split.test)),
        **guarantees(scheme, split.train, copies, squares),
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist-5k")
    parser.add_argument("--k", default="4", help="for instance 4,16")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--noise", default="0,1,3,10,30,100")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/noise.csv"))
    options = parsed(parser)
    figures = {}
    for k in map(int, options.k.split(",")):
        for noise in map(float, options.noise.split(",")):
            scheme = Scheme.inside(k, noise=noise)
            chosen = (options.data, k, options.copies, noise, options.epochs, options.seed)
            setting = dict(zip(SETTING, map(str, chosen), strict=True))
            found = next(
                (row for row in rows_of(options.out) if setting.items() <= row.items()), None
            )
            if found is None:
                facts = measure(options.data, scheme, options.copies, options.epochs, options.seed)
                found = {**setting, **facts, **surroundings()}
                add(options.out, FIELDS, found)
            figures[f"k={k}, noise={noise:g}"] = [found["accuracy"], found.get("epsilon")]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

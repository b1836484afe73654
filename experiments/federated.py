"""Measure the final accuracy and speed of federated learning with InstaHide and on plain images.

    python -m experiments.federated --partitions iid,dirichlet --schemes plain,cross-4 --seeds 0

Three clients in Flower's simulation engine split the first images of Fashion-MNIST at random or by
a Dirichlet distribution over classes, and take turns on one CPU. Each run adds a row to
``experiments/results/federated.csv``; runs that the file already contains are skipped. The last
line printed is a JSON object: for each partition the accuracies in percent, the drops in points,
and the speed relative to plain images.

One slow core takes about ten minutes for a run, with 6,000 training images and 60 passes over
them. Fewer passes favor plain images, which are learned sooner.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any

import flwr
import numpy as np

from experiments.records import add, keys_in, percent, rows_of, surroundings
from instahide import ImageTable, open_split

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "federated"))
from simulate import simulate

CLIENTS, BATCH_SIZE, LR, ALPHA = 3, 64, 0.1, 0.3
#: What a run is told apart by.
KEYS = ("data", "images", "rounds", "local_epochs", "partition", "scheme", "seed")
FIELDS = [
    *KEYS, "clients", "accuracy", "curve", "rounds_per_second", "seconds", "exposure_mean",
    "exposure_most", "model", "batch_size", "lr", "threads", "torch", "flwr", "python", "platform",
    "commit",
]  # fmt: skip


def save(path: Path, images: ImageTable) -> Path:
    np.savez(path, images=images.pixels, labels=images.labels)
    return path


def run(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Simulate one federation and return the figures."""
    train, test = open_split(asked["data"])
    kind, *k = asked["scheme"].split("-")
    config = {
        "data": save(folder / "train.npz", train.subset(slice(0, asked["images"]))),
        "test": save(folder / "test.npz", test),
        "scheme": kind, "k": int(k[0]) if k else 4, "partition": asked["partition"],
        "alpha": ALPHA, "seed": asked["seed"], "rounds": asked["rounds"],
        "local-epochs": asked["local_epochs"], "batch-size": BATCH_SIZE, "lr": LR,
        "timeout": 3600,
    }  # fmt: skip
    results = simulate(folder / "work", CLIENTS, config)
    pages = results["rounds"]
    seconds = [page["seconds"] for page in pages]
    return {
        "clients": CLIENTS,
        "accuracy": percent(results["accuracy"]),
        "curve": " ".join(str(percent(page["accuracy"])) for page in pages),
        # The median leaves out the first round, which starts everything, and neighbours' work.
        "rounds_per_second": round(1 / median(seconds), 4),
        "seconds": round(sum(seconds), 1),
        "exposure_mean": pages[-1]["exposure-mean"],
        "exposure_most": pages[-1]["exposure-most"],
        "model": results["settings"]["model"], "batch_size": BATCH_SIZE, "lr": LR,
        "flwr": flwr.__version__, **surroundings(),
        "threads": results["surroundings"]["threads"],
    }  # fmt: skip


def summary(rows: list[dict[str, str]], asked: dict[str, Any]) -> dict[str, Any]:
    """Return the means over seeds of the runs of the same size."""
    size = ("data", "images", "rounds", "local_epochs")
    mine = [row for row in rows if all(row[name] == str(asked[name]) for name in size)]
    figures: dict[str, Any] = {name: asked[name] for name in size}
    for partition in dict.fromkeys(row["partition"] for row in mine):
        means = {
            scheme: {
                column: mean(
                    float(row[column])
                    for row in mine
                    if (row["partition"], row["scheme"]) == (partition, scheme)
                )
                for column in ("accuracy", "rounds_per_second")
            }
            for scheme in dict.fromkeys(
                row["scheme"] for row in mine if row["partition"] == partition
            )
        }
        plain = means.get("plain")
        for scheme, found in means.items():
            figures[f"{partition}_{scheme}"] = round(found["accuracy"], 2)
            if plain and scheme != "plain":
                drop, speed = (plain[name] - found[name] for name in plain)
                figures[f"{partition}_{scheme}_drop"] = round(drop, 2)
                slower = speed / plain["rounds_per_second"]
                figures[f"{partition}_{scheme}_slower_percent"] = round(100 * slower, 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=6000, help="of all clients together")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--local-epochs", type=int, default=2)
    parser.add_argument("--partitions", default="iid,dirichlet")
    parser.add_argument("--schemes", default="plain,cross-4")
    parser.add_argument("--seeds", default="0", help="for instance 0,1,2")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/federated.csv"))
    options = parser.parse_args()
    size = {name: getattr(options, name) for name in ("data", "images", "rounds", "local_epochs")}
    for seed in map(int, options.seeds.split(",")):
        for partition in options.partitions.split(","):
            for scheme in options.schemes.split(","):
                asked = {**size, "partition": partition, "scheme": scheme, "seed": seed}
                if tuple(str(asked[name]) for name in KEYS) not in done(options.out):
                    with tempfile.TemporaryDirectory() as folder:
                        add(options.out, FIELDS, {**asked, **run(asked, Path(folder))})
    print(json.dumps(summary(rows_of(options.out), size)))


def done(path: Path) -> set[tuple[str, ...]]:
    return keys_in(path, KEYS)


if __name__ == "__main__":
    main()

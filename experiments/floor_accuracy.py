"""Measure what an error floor costs in accuracy, over noise sigma, k and encodings T of each image.

    python -m experiments.floor_accuracy
    python -m experiments.floor_accuracy --data digits --schemes mixup --k 1,2 --copies 1

The floor follows from the image with the largest sum of squared coefficients in the ledger. It is
given in percent of the variance of the images: a blank image has 100 %, and of normalized images it
is sigma^2 / S. It is the floor of unbiased estimators; `experiments.error_floors` measures biased
ones. Whether the attacker knows the mask does not change the floor, so `mixup`, which has none,
pays for the same floor with less accuracy.

Encodings are published once, T of each image, and a small network is trained on them and tested on
plain images. Each run adds a row to the CSV file; runs that the file already contains are skipped.
Color patches are crops of scikit-image's photographs, with the photograph as the class. The last
line printed is a JSON object: for each data set the highest floor within `MOST_DROP` points.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple, cast

import numpy as np

from experiments.command_line import parsed
from experiments.noise import published_and_trained
from experiments.photographs import scikit_image_classes
from experiments.records import add, missing, percent, rows_of, surroundings
from instahide.data import ImageTable, Split, open_split
from instahide.encryption.scheme import Preset, Scheme
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer

OUT = Path("experiments/results/floor_accuracy.csv")
DATA = ("digits", "fashion-mnist", "patches")
EPOCHS = {"digits": 60, "fashion-mnist": 5, "patches": 30}
#: Crops of each photograph; every fifth one is for testing.
CROPS = 600
#: The goal: a floor of so many percent of the variance at a drop of at most so many points.
LEAST_FLOOR, MOST_DROP = 20.0, 5.0


class Run(NamedTuple):
    """One training run."""

    data: str
    scheme: str
    k: int
    copies: int
    noise: float
    seed: int


FIELDS = (
    *Run._fields, "epochs", "images", "accuracy", "squares_most", "squares_median", "floor_least",
    "floor_median", "seconds", "threads", "torch", "python", "platform", "commit",
)  # fmt: skip


@cache
def split_of(data: str) -> Split:
    """Return training and test images."""
    if data != "patches":
        return open_split(data)
    photos = scikit_image_classes(CROPS)
    pixels = np.concatenate(list(photos.values()))
    labels = np.repeat(np.arange(len(photos)), [len(crops) for crops in photos.values()])
    table = ImageTable.from_arrays(pixels, labels, classes=tuple(photos))
    test = np.arange(len(table)) % 5 == 4
    return Split(table.subset(~test).measured(), table.subset(test))


def measure(run: Run) -> dict[str, object]:
    """Return accuracy and floors of one run; a plain one trains on the images themselves."""
    split, epochs = split_of(run.data), EPOCHS[run.data]
    started = time.perf_counter()
    facts: dict[str, object] = {"epochs": epochs, "images": len(split.train)}
    if run.scheme == "plain":
        accuracy, floors = plain_accuracy(split, epochs, run.seed), {}
    else:
        scheme = Scheme.preset(cast(Preset, run.scheme), run.k, noise=run.noise)
        accuracy, squares = published_and_trained(split, scheme, run.copies, epochs, run.seed)
        most, median = float(squares.max()), float(np.median(squares))
        floors = {
            "squares_most": round(most, 4),
            "squares_median": round(median, 4),
            "floor_least": percent(run.noise**2 / most),
            "floor_median": percent(run.noise**2 / median),
        }
    seconds = round(time.perf_counter() - started, 1)
    return {**facts, "accuracy": percent(accuracy), **floors, "seconds": seconds}


def plain_accuracy(split: Split, epochs: int, seed: int) -> float:
    """Return the accuracy of the same network after training on plain images."""
    with tempfile.TemporaryDirectory() as name:
        for part, table in (("train", split.train), ("test", split.test)):
            np.savez(Path(name, f"{part}.npz"), x=table.pixels, y=table.labels)
        values = {"data": f"{name}/train.npz", "test": f"{name}/test.npz", "scheme": "plain"}
        job = Trainer.open(TrainSettings.from_values({**values, "epochs": epochs, "seed": seed}))
        job.run()
    return float(job.metrics["accuracy"])


def runs(options: argparse.Namespace) -> list[Run]:
    """Return all runs: for each data set and seed plain training first, then the cheapest."""
    found = []
    for data, seed in product(options.data.split(","), range(options.seeds)):
        found.append(Run(data, "plain", 1, 1, 0.0, seed))
        for copies, k, scheme, noise in product(
            map(int, options.copies.split(",")),
            map(int, options.k.split(",")),
            options.schemes.split(","),
            map(float, options.noise.split(",")),
        ):
            found.append(Run(data, scheme, k, copies, noise, seed))
    return found


def drops(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float | str]]:
    """Return accuracy, drop and floors of each setting, as means over seeds."""
    settings: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("data", "scheme", "k", "copies", "noise"))
        settings.setdefault(key, []).append(row)
    found: list[dict[str, float | str]] = []
    for (data, scheme, k, copies, noise), mine in settings.items():
        plain = settings.get((data, "plain", "1", "1", "0.0"))
        if scheme == "plain" or plain is None:
            continue
        figures: dict[str, float | str] = {
            name: mean(float(row[name]) for row in mine)
            for name in ("accuracy", "floor_least", "floor_median", "squares_most")
        }
        drop = mean(float(row["accuracy"]) for row in plain) - cast(float, figures["accuracy"])
        about = {"data": data, "scheme": scheme, "k": k, "copies": copies, "noise": noise}
        found.append({**about, **figures, "drop": drop, "seeds": str(len(mine))})
    return found


def best(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, float | str]]:
    """Return for each data set the setting with the highest floor within `MOST_DROP` points."""
    found: dict[str, dict[str, float | str]] = {}
    for setting in drops(rows):
        data, floor = str(setting["data"]), cast(float, setting["floor_least"])
        within = cast(float, setting["drop"]) <= MOST_DROP
        if within and (data not in found or floor > cast(float, found[data]["floor_least"])):
            found[data] = setting
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--schemes", default="mixup,inside")
    parser.add_argument("--k", default="1,2,4")
    parser.add_argument("--copies", default="1,4", help="encodings of each image")
    parser.add_argument("--noise", default="0,0.3,0.45,0.6,1")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file")
    options = parsed(parser)
    for run in missing(options.out, Run._fields, runs(options)):
        found = measure(run)
        add(options.out, FIELDS, {**run._asdict(), **found, **surroundings()})
        print(run, found["accuracy"], found.get("floor_least"), flush=True)
    print(json.dumps(best(rows_of(options.out))))


if __name__ == "__main__":
    main()

"""Measure CPU time and memory per epoch, on encodings and on plain images.

    python -m experiments.cost

Each scheme trains in a separate process with one thread. Its CPU time includes encoding and a test
at the end; its memory is the peak of the process, libraries included. Schemes take turns, and each
process adds one row to the CSV file. The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import torch

from experiments.frontier import BATCH_SIZE, SCHEMES, learned, public_of
from experiments.reconstruction import processor_seconds
from experiments.records import add, keys_in, rows_of, surroundings
from instahide import EncodedLoader, Encoder, open_split

OUT = Path("experiments/results/cost.csv")
#: What a run is told apart by.
KEYS = ("data", "scheme", "epochs", "turn")


def measure(data: str, scheme: str, epochs: int) -> dict[str, object]:
    """Train once in a new process, after one epoch that is not counted."""
    torch.set_num_threads(1)
    split, chosen = open_split(data), SCHEMES[scheme]
    encoder = Encoder(chosen, split.train, public_of(chosen, split.train))
    batches = EncodedLoader(encoder, BATCH_SIZE)
    learned(chosen, split, batches, 1, 0)
    began = processor_seconds()
    learned(chosen, split, batches, epochs, 0)
    seconds = (processor_seconds() - began) / epochs
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {"seconds_an_epoch": round(seconds, 3), "peak_mib": round(peak, 1)}
    return row | surroundings()


def summary(rows: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    """Return the medians over turns for each scheme, and their ratios to plain training."""
    figures = {
        scheme: {
            name: median(float(row[name]) for row in rows if row["scheme"] == scheme)
            for name in ("seconds_an_epoch", "peak_mib")
        }
        for scheme in dict.fromkeys(row["scheme"] for row in rows)
    }
    plain = figures["plain"]["seconds_an_epoch"]
    return {n: f | {"against_plain": f["seconds_an_epoch"] / plain} for n, f in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist-5k")
    parser.add_argument("--schemes", default="plain,mixup-4,inside-4,cross-4,cross-6")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    have = keys_in(options.out, KEYS)
    fresh = multiprocessing.get_context("spawn")
    for turn in range(options.turns):
        for scheme in options.schemes.split(","):
            key = (options.data, scheme, str(options.epochs), str(turn))
            if key in have:
                continue
            with ProcessPoolExecutor(1, mp_context=fresh) as process:
                figures = process.submit(measure, options.data, scheme, options.epochs).result()
            row = dict(zip(KEYS, key, strict=True)) | figures
            add(options.out, list(row), row)
    print(json.dumps(summary(rows_of(options.out))))


if __name__ == "__main__":
    main()

"""Measure how long training takes with each rival, relative to plain training.

    python -m experiments.training_time --threads 1

The rivals are those of `experiments.encoders`, and DP-SGD of `experiments.rivals`. In each turn all
of them train in one process, for one pass over the same images, and a rival's CPU time is compared
with that of plain training in the same turn, so that another machine makes little difference. A
turn before the first is not counted, because loops are compiled and public images cut in it. Each
finished turn adds its rows to the CSV file, and is skipped from then on. The last line printed is a
JSON object: the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from experiments.choices import privately
from experiments.command_line import parsed
from experiments.encoders import BLOCKS, Rival, photographs, rivals, training
from experiments.records import add, keys_in, rows_of, surroundings
from experiments.rivals import NOISE
from instahide import open_split

OUT = Path("experiments/results/training_time.csv")
DP_SGD = "dp-sgd"
#: Images, of which a fifth is for testing.
IMAGES = 1400
KEYS = ("data", "turn")
FIELDS = (
    "data", "rival", "turn", "images", "seconds", "threads", "torch", "python", "platform",
    "commit",
)  # fmt: skip


def subset(data: str, folder: Path) -> str:
    """Write some images of a set to a file, and return its path."""
    images = open_split(photographs(folder) if data == "photographs" else data).train
    rows = np.random.default_rng(0).permutation(len(images))[:IMAGES]
    path = folder / "images.npz"
    np.savez(path, x=images.pixels[rows], y=images.labels[rows])
    return str(path)


def seconds(source: str, rival: Rival | None, folder: Path) -> float:
    """Return the CPU seconds of a pass; without a rival, of DP-SGD."""
    if rival is None:
        split = open_split(source)
        began = time.process_time()
        privately(NOISE, split, 1, 0)
        return time.process_time() - began
    job = training(source, rival, 1, 0, folder / "ledger.sqlite")
    began = time.process_time()
    job.run()
    return time.process_time() - began


def turns(data: str, count: int, folder: Path) -> Iterator[dict[str, float]]:
    """Yield the CPU seconds of each rival in each turn, after one that is not counted."""
    source = subset(data, folder)
    named: dict[str, Rival | None] = {**rivals(data), DP_SGD: None}
    for turn in range(1 + count):
        found = {name: seconds(source, rival, folder) for name, rival in named.items()}
        if turn:
            yield found


def relative(rows: Sequence[Mapping[str, str]], data: str) -> dict[str, float]:
    """Return the median over turns of each rival's time, relative to plain training."""
    mine = [row for row in rows if row["data"] == data]
    times = {(row["rival"], row["turn"]): float(row["seconds"]) for row in mine}
    ratios: dict[str, list[float]] = {}
    for (name, turn), spent in times.items():
        ratios.setdefault(name, []).append(spent / times["plain", turn])
    return {name: median(found) for name, found in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=",".join(BLOCKS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parsed(parser)
    for data in options.data.split(","):
        done = sum(key[0] == data for key in keys_in(options.out, KEYS))
        with tempfile.TemporaryDirectory() as folder:
            left = turns(data, options.turns - done, Path(folder)) if done < options.turns else ()
            for turn, found in enumerate(left, done):
                facts = {"data": data, "turn": turn, "images": IMAGES, **surroundings()}
                rows = [
                    facts | {"rival": name, "seconds": round(spent, 3)}
                    for name, spent in found.items()
                ]
                add(options.out, FIELDS, *rows)
                print(data, turn, flush=True)
    found = rows_of(options.out)
    print(json.dumps({data: relative(found, data) for data in options.data.split(",")}))


if __name__ == "__main__":
    main()

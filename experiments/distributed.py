"""Compare the test accuracy of one process and of two under `torchrun`, at equal total batch size.

    python -m experiments.distributed --seeds 0,1,2

Each run is `instahide train` as a user would start it, with one thread for each process. It adds a
row to ``experiments/results/distributed.csv``; runs that the file already contains are skipped. The
last line printed is a JSON object: means over seeds in percent, their difference, and the standard
error of the difference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, variance

from experiments.records import add, percent, rows_of, surroundings

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
#: What a run is told apart by.
KEYS = ("data", "scheme", "epochs", "seed", "processes")
FIELDS = [
    *KEYS, "accuracy", "images_per_second", "seconds", "threads", "precision", "torch", "python",
    "platform", "commit",
]  # fmt: skip


def run(asked: dict[str, str]) -> dict[str, object]:
    """Train once and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = LAUNCHER if asked["processes"] == "2" else ()
        subprocess.run(
            [
                sys.executable, *launcher, "-m", "instahide", "train", asked["data"],
                "--scheme", asked["scheme"], "--epochs", asked["epochs"], "--seed", asked["seed"],
                "--queries", "0", "--out", f"{folder}/run", "--ledger", f"{folder}/ledger.sqlite",
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )  # fmt: skip
        found = json.loads(Path(folder, "run", "results.json").read_text())
    assert found["world"]["size"] == int(asked["processes"])
    return {
        "accuracy": percent(found["metrics"]["accuracy"]),
        "images_per_second": round(found["images_per_second"]),
        "seconds": round(found["training_seconds"], 1),
        "precision": found["surroundings"]["precision"],
        **surroundings(),
        "threads": found["surroundings"]["threads"],
    }


def summary(rows: list[dict[str, str]], asked: dict[str, str]) -> dict[str, object]:
    """Summarize the runs with the same data, scheme and number of epochs."""
    mine = [row for row in rows if all(row[name] == asked[name] for name in KEYS[:3])]
    one, two = (
        [float(row["accuracy"]) for row in mine if row["processes"] == processes]
        for processes in ("1", "2")
    )
    enough = min(len(one), len(two)) > 1
    error = (variance(one) / len(one) + variance(two) / len(two)) ** 0.5 if enough else None
    return {
        "data": asked["data"],
        "scheme": asked["scheme"],
        "epochs": int(asked["epochs"]),
        "seeds": min(len(one), len(two)),
        "accuracy_one": round(mean(one), 2),
        "accuracy_two": round(mean(two), 2),
        "difference": round(mean(two) - mean(one), 2),
        "standard_error": None if error is None else round(error, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist-5k")
    parser.add_argument("--scheme", default="cross")
    parser.add_argument("--epochs", default="20")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/distributed.csv"))
    options = parser.parse_args()
    size = {"data": options.data, "scheme": options.scheme, "epochs": options.epochs}
    for seed in options.seeds.split(","):
        for processes in ("1", "2"):
            asked = {**size, "seed": seed, "processes": processes}
            if not any(row.items() >= asked.items() for row in rows_of(options.out)):
                add(options.out, FIELDS, {**asked, **run(asked)})
    print(json.dumps(summary(rows_of(options.out), size)))


if __name__ == "__main__":
    main()

"""Training in two processes of one thread under `torchrun`, against one process of one thread.

Both are `instahide train` as a user would start it, on random images of CIFAR's size, in turns. The
images a second are those that the runs themselves report, without their first epochs, in which
kernels are loaded. The one process has one core for all that it does, encryption included; the two
have two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measure import on_core, quick, report
from benchmarks.workload import random_table

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def images_per_second(data: Path, network: str, epochs: int, processes: int) -> float:
    """Median over all epochs but the first."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            sys.executable, *(LAUNCHER if processes == 2 else ()), "-m", "instahide", "train",
            str(data), "--model", network, "--epochs", str(epochs), "--out", str(out),
            "--scheme", "inside", "--queries", "0", "--ledger", f"{folder}/ledger.sqlite",
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        records = json.loads((out / "results.json").read_text())["epochs"][1:]
        return median(record["images_per_second"] for record in records)


def measure(data: Path, network: str, epochs: int, rounds: int) -> tuple[float, float]:
    """Median images a second of one process and of two."""
    core = min(os.sched_getaffinity(0))
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, found in rates.items():
            with on_core(core) if processes == 1 else nullcontext():
                found.append(images_per_second(data, network, epochs, processes))
    return median(rates[1]), median(rates[2])


def compare(network: str, count: int, epochs: int, rounds: int) -> dict[str, float]:
    table = random_table(count)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npz"
        np.savez(data, x=table.pixels, y=table.labels)
        one, two = measure(data, network, epochs, rounds)
    # The network that is trained by default is the one that is promised.
    name = "two_ranks_against_one" + ("" if network == "small" else f"_{network}")
    return {
        name: two / one,
        f"{network}_one_images_per_s": one,
        f"{network}_two_images_per_s": two,
    }


def main() -> None:
    sizes = {"small": (10_000, 4, 3), "resnet18": (1_280, 3, 3)}
    if quick(__doc__):
        sizes = {"small": (400, 2, 1)}
    figures: dict[str, float] = {}
    for network, size in sizes.items():
        figures |= compare(network, *size)
    rows = [(name.replace("_", " "), f"{value:,.2f}") for name, value in figures.items()]
    report("Training on 3 x 32 x 32 images, inside k=4, batches of 256", rows, figures)


if __name__ == "__main__":
    main()

"""Measure what the reconstruction attack recovers from five kinds of private images.

    python -m experiments.reconstruction_kinds --threads 1
    python -m experiments.reconstruction_kinds --kinds photographs --images 1000 --copies 50
    python -m experiments.reconstruction_kinds --kinds photographs --images 10000 --copies 10

Each draw has a choice of private images and keys of its own. The private images are those of
`experiments.victims`: no network was trained on them, and nothing was tuned on them. Beside every
result is the ceiling: the recovery of the attack, started at the true images with the true
assignment and coefficients. It is not part of the time and the memory. What the attack says of its
results is read from runs with ``--out experiments/results/reconstruction_confidence.csv``.

Each finished run adds a row to the CSV file; runs that the file already contains are skipped. An
interrupted run continues from ``--work``, but then its times and memory are not recorded. The last
line printed is a JSON object. Peak memory is read from Linux's ``/proc``.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from experiments.command_line import parsed
from experiments.reconstruction import (
    CEILING,
    PUBLIC,
    Victim,
    ceiling_figures,
    public_images,
    say,
    timed,
)
from experiments.records import add, mean_by, missing, rows_of, surroundings
from experiments.victims import KINDS, private_images
from instahide.attacks.base import require
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.attacks.reconstruction.state import FILE
from instahide.audit.scoring.reconstruction import score_reconstruction

OUT = Path("experiments/results/reconstruction_kinds.csv")
MEASURES = (
    "groups", "mass", "ssim", "ssim_best", "above_half", "recovered", "claimed",
    "claimed_rightly", "expected", *CEILING, "seconds", "cpu_seconds", "peak_mib",
)  # fmt: skip


class Run(NamedTuple):
    """What is attacked: a kind of images, and the threat model."""

    kind: str
    images: int
    copies: int
    labels: str
    draw: int


def measure(run: Run, work: Path) -> dict[str, float]:
    """Return the figures of one attack under new keys, or under those that ``work`` has already.

    The times of an attack that was continued are not known.
    """
    target = Victim(
        work / "-".join(map(str, run)),
        lambda: private_images(run.kind, run.draw, run.images),
        # With fewer, public images would be in as many encodings as private ones.
        public=max(PUBLIC, run.images * run.copies),
        copies=run.copies,
    )
    public_images.cache_clear()
    observation = target.observation(run.labels)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    fresh = not (target.folder / FILE).exists()
    attack = ReconstructionAttack(folder=target.folder)
    found, times = timed(lambda: attack.run(observation, Budget(), say))
    figures = {"groups": found.statistics["groups"]}
    if fresh:
        figures |= times | {"peak_mib": peak_mib()}
    score = score_reconstruction(found, target.truth, observation.mean, observation.std)
    sure = require(found.confidence)
    figures |= score.summary(sure, RECOVERED) | {"expected": float(sure.sum())}
    return figures | ceiling_figures(found, observation, target.truth)


def peak_mib() -> float:
    """Return the most resident memory of this process since the last reset."""
    status = Path("/proc/self/status").read_text()
    return float(require(re.search(r"VmHWM:\s*(\d+) kB", status))[1]) / 1024


def runs(options: argparse.Namespace) -> list[Run]:
    """Return all runs, one draw after the other."""
    kinds, copies, labels = (
        getattr(options, name).split(",") for name in ("kinds", "copies", "labels")
    )
    return [
        Run(kind, options.images, int(count), mode, draw)
        for draw in range(1, options.draws + 1)
        for mode in labels
        for count in copies
        for kind in kinds
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--images", type=int, default=100, help="number of private images")
    parser.add_argument("--copies", default="50,20,10,5,2,1", help="encodings per private image")
    parser.add_argument("--labels", default="none", help="none, coarse or soft")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder to go on in; by default a new one")
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file")
    options = parsed(parser)
    for run in missing(options.out, Run._fields, runs(options)):
        print(run, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            found = measure(run, options.work or Path(scratch))
        figures = {name: round(value, 5) for name, value in found.items()}
        row = run._asdict() | {name: figures.get(name, "") for name in MEASURES}
        row |= surroundings()
        add(options.out, list(row), row)
    print(json.dumps(summary(rows_of(options.out))))


def summary(rows: list[dict[str, str]]) -> dict[str, float]:
    """Return the mean number of images with an SSIM above 0.5 over draws, by run."""
    return mean_by(rows, "{images} {kind} x {copies}, labels: {labels}".format_map, "above_half")


if __name__ == "__main__":
    main()

"""Measure the reconstruction attack on images that were cropped or mirrored before they were mixed.

    python -m experiments.reconstruction_augmented --threads 1
    python -m experiments.reconstruction_augmented --augmentations crop --attackers aware

Each private and public image of a mix is mirrored with probability 1/2, as with ``--flip``, or
moved by at most 4 pixels, as with ``--crop-padding 4``, or both. An aware attacker knows this; an
unaware one attacks the encodings as if nothing was done. The private images are those of
`experiments.victims`, the public ones crops of other photographs.

Each finished run adds a row to the CSV file; runs that the file already contains are skipped. The
last line printed is a JSON object with the mean number of recovered images.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from experiments.command_line import parsed
from experiments.reconstruction import SCHEME, ceiling_figures, public_images, say, timed
from experiments.reconstruction_kinds import MEASURES as OF_KINDS
from experiments.records import add, mean_by, missing, rows_of, surroundings
from experiments.victims import KINDS, private_images
from instahide.attacks.base import ThreatModel, require
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.reconstruction import score_reconstruction
from instahide.encryption.augmentation import Augmentation

OUT = Path("experiments/results/reconstruction_augmented.csv")
AUGMENTATIONS = {
    "flip": Augmentation(flip=True),
    "crop": Augmentation(padding=4),
    "crop and flip": Augmentation(padding=4, flip=True),
}
MEASURES = tuple(name for name in OF_KINDS if name != "peak_mib")


class Run(NamedTuple):
    """What is attacked, and whether the attacker knows of the augmentation."""

    kind: str
    images: int
    copies: int
    draw: int
    augmentation: str
    attacker: str


def measure(run: Run) -> dict[str, float]:
    """Return the figures of one attack under new keys."""
    private = private_images(run.kind, run.draw, run.images)
    threat = ThreatModel(labels="none", public="none", encodings_per_image=run.copies)
    observation, truth = observe(
        private, public_images(), SCHEME, threat, augmentation=AUGMENTATIONS[run.augmentation]
    )
    unaware = replace(observation, augmentation=Augmentation())
    seen = observation if run.attacker == "aware" else unaware
    found, times = timed(lambda: ReconstructionAttack().run(seen, Budget(), say))
    score = score_reconstruction(found, truth, observation.mean, observation.std)
    sure = require(found.confidence)
    figures = score.summary(sure, RECOVERED) | {"expected": float(sure.sum())}
    figures |= {"groups": found.statistics["groups"]} | times
    return figures | ceiling_figures(found, observation, truth)


def summary(rows: list[dict[str, str]]) -> dict[str, float]:
    """Return the mean number of recovered images over draws."""
    return mean_by(
        rows, "{images} {kind} x {copies}, {augmentation}, {attacker}".format_map, "recovered"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default="photographs", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--images", type=int, default=100, help="number of private images")
    parser.add_argument("--copies", default="20,50", help="encodings per private image")
    parser.add_argument("--draws", default="2,3", help="choices of private images and keys")
    parser.add_argument("--augmentations", default=",".join(AUGMENTATIONS))
    parser.add_argument("--attackers", default="aware,unaware")
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file")
    options = parsed(parser)
    wanted = [
        Run(kind, options.images, int(copies), int(draw), augmentation, attacker)
        for augmentation in options.augmentations.split(",")
        for copies in options.copies.split(",")
        for draw in options.draws.split(",")
        for kind in options.kinds.split(",")
        for attacker in options.attackers.split(",")
    ]
    for run in missing(options.out, Run._fields, wanted):
        print(run, flush=True)
        figures = {name: round(value, 5) for name, value in measure(run).items()}
        row = run._asdict() | {name: figures[name] for name in MEASURES} | surroundings()
        add(options.out, list(row), row)
    print(json.dumps(summary(rows_of(options.out))))


if __name__ == "__main__":
    main()

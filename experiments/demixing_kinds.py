"""Measure what demixing recovers from one encoding of each of 100 images, of five kinds of images.

    python -m experiments.demixing_kinds --threads 1

The private images are those of `experiments.victims`. The attacker has no images of its own: it
uses the shipped sign network. Beside the attack stand the encoding's absolute values, the best
blank picture, and the mix before the mask, which a perfect prediction of signs would give. All are
compared with the strongest private image of the encoding.

Each finished run adds a row to the CSV file; runs that the file already contains are skipped. The
last line printed is a JSON object with the mean number of recovered images by kind and scheme.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch

from experiments import markdown
from experiments.command_line import parsed
from experiments.reconstruction import public_images
from experiments.records import add, mean_by, missing, rows_of, surroundings
from experiments.victims import KINDS, private_images
from instahide import Scheme
from instahide.attacks.base import RecoveredImages, ThreatModel, no_progress, require
from instahide.attacks.budget import Budget
from instahide.attacks.demixing import Demixing
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.matching import match_to_truth

OUT = Path("experiments/results/demixing_kinds.csv")
SCHEMES = {
    "inside-4": Scheme.inside(4),
    "inside-6": Scheme.inside(6),
    "cross-4": Scheme.cross(4),
    "cross-6": Scheme.cross(6),
}
#: Images whose SSIM and number of recovered ones are kept.
SHOWN = ("attack", "absolute", "mix")
MEASURES = [f"{what}_{name}" for name in SHOWN for what in ("ssim", "recovered")] + ["ssim_blank"]


class Run(NamedTuple):
    """What is attacked."""

    kind: str
    scheme: str
    draw: int


def measure(run: Run) -> dict[str, float]:
    """Return the figures of one run under new keys."""
    threat = ThreatModel(labels="none", public="none")
    private = private_images(run.kind, run.draw)
    observation, truth = observe(private, public_images(), SCHEMES[run.scheme], threat)
    encodings = observation.encodings
    shown = {
        "attack": Demixing().run(observation, Budget(), no_progress).images,
        "absolute": encodings.abs(),
        "mix": torch.where(truth.negated, -encodings, encodings),
    }
    figures = {}
    for name, images in shown.items():
        found = RecoveredImages(images, torch.arange(len(encodings)), dominant=True)
        matches = require(match_to_truth(found, observation, truth))
        figures[f"ssim_{name}"] = float(matches.ssim.mean())
        figures[f"recovered_{name}"] = float(matches.recognizable)
        figures["ssim_blank"] = float(matches.blank.mean())
    return figures


def summary(rows: list[dict[str, str]]) -> dict[str, float]:
    """Return the mean number of images that the attack recovers, over draws."""
    return mean_by(rows, "{kind} {scheme}".format_map, "recovered_attack")


def table(rows: list[dict[str, str]]) -> str:
    """Return the table of docs/attacks/demixing.md."""
    heads = [
        "images", "scheme", "recovered of 100", "from |x̃|", "from the mix", "SSIM", "of |x̃|",
        "of the mix", "best blank picture",
    ]  # fmt: skip
    shown = []
    for kind in KINDS:
        for scheme in SCHEMES:
            own = [row for row in rows if (row["kind"], row["scheme"]) == (kind, scheme)]
            if own:
                means = {name: mean(float(row[name]) for row in own) for name in MEASURES}
                counts = [f"{means[f'recovered_{name}']:.0f}" for name in SHOWN]
                alike = [f"{means[f'ssim_{name}']:.2f}" for name in (*SHOWN, "blank")]
                shown.append([kind, scheme, *counts, *alike])
    return "\n".join(markdown.table(heads, shown, texts=(0, 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--draws", default="2,3", help="choices of private images")
    parser.add_argument("--table", action="store_true", help="only print the table of the rows")
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file")
    options = parsed(parser)
    wanted = [
        Run(kind, scheme, int(draw))
        for draw in options.draws.split(",")
        for kind in options.kinds.split(",")
        for scheme in options.schemes.split(",")
    ]
    for run in [] if options.table else missing(options.out, Run._fields, wanted):
        figures = {name: round(value, 4) for name, value in measure(run).items()}
        print(run, figures, flush=True)
        row = run._asdict() | {name: figures[name] for name in MEASURES} | surroundings()
        add(options.out, list(row), row)
    rows = rows_of(options.out)
    print(table(rows) if options.table else json.dumps(summary(rows)))


if __name__ == "__main__":
    main()

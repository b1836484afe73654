"""Measure what demixing recovers from single encodings of digits and photographs.

    python -m experiments.demixing --data mnist-5k,photographs --seconds 120

The attacker trains on other digits, or on patches of other photographs (see
`experiments.photographs`). Public images are patches of photographs in both cases. The attacker
sees each encoding separately. Each finished run adds a row to the CSV file; runs that the file
already contains are skipped. The last line printed is a JSON object with three SSIM values for each
data set and scheme, all to the strongest private image: of the network's image, of the encoding
itself (of its absolute value under a mask), and of the mean color.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import markdown
from experiments.budgets import ProcessorTime
from experiments.command_line import parsed
from experiments.records import add, keys_in, rows_of, surroundings
from instahide import ImageTable, Scheme, open_pool, open_split
from instahide.attacks.base import ThreatModel
from instahide.attacks.demixing import Demixing
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.scores import score

SCHEMES = {
    "mixup-inside-2": Scheme.mixup(2),
    "mixup-inside-4": Scheme.mixup(4),
    "mixup-cross-4": Scheme.cross(4, mask=False),
    "inside-2": Scheme.inside(2),
    "inside-4": Scheme.inside(4),
    "cross-4": Scheme.cross(4),
}
#: Private images, encodings of each, and images of the attacker's own and of the pool.
PRIVATE, COPIES, SHADOW, PUBLIC = 100, 3, 6000, 10_000
#: What a run is told apart by, and the figures that are kept of it.
KEYS = ("data", "scheme", "budget_seconds", "seed")
FIGURES = (
    "ssim_mean", "ssim_of_encoding", "ssim_of_nothing", "identified_mean", "identified_by_chance",
    "steps", "loss", "seconds",
)  # fmt: skip
FIELDS = [*KEYS, *FIGURES, "threads", "torch", "python", "platform", "commit"]


class Images(NamedTuple):
    private: ImageTable
    public: ImageTable
    shadow: ImageTable


def images_of(data: str, seed: int) -> Images:
    """Return private, public and shadow images, which have no image in common."""
    if data == "photographs":
        from experiments.photographs import patches

        private = ImageTable.from_arrays(patches("private", PRIVATE, seed), np.arange(PRIVATE) % 10)
        public, shadow = (
            # Some photographs are flat: more patches are asked for than are wanted.
            ImageTable.from_arrays(patches(group, count * 4 // 3, seed)[:count])
            for group, count in (("public", PUBLIC), ("shadow", SHADOW))
        )
        return Images(private, public, shadow)
    train = open_split(data).train
    order = np.random.default_rng(seed).permutation(len(train))
    return Images(
        train.subset(order[:PRIVATE]),
        open_pool("photos", train.shape),
        train.subset(order[PRIVATE:]),
    )


def run(images: Images, scheme: Scheme, seconds: float) -> dict[str, float]:
    """Run the attack and return its figures and its score."""
    threat = ThreatModel(labels="none", shadow=True, encodings_per_image=COPIES)
    observation, truth = observe(
        images.private, images.public, scheme, threat, shadow=images.shadow
    )
    found = Demixing(steps=1_000_000).run(observation, ProcessorTime(seconds), say)
    figures = dict(found.statistics) | dict(score(found, observation, truth).summary)
    return {name: float(f"{figures[name]:.5g}") for name in FIGURES}


def say(what: str, share: float) -> None:
    if int(what.split()[1].rstrip(",")) % 50 == 0:
        print(f"{100 * share:3.0f}%  {what}", flush=True)


def summary(rows: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    """Return the SSIM values of the last run for each data set and scheme."""
    return {
        f"{row['data']} {row['scheme']}": {
            name: float(row[name]) for name in FIGURES if name.startswith("ssim")
        }
        for row in rows
    }


def table(rows: list[dict[str, str]]) -> str:
    """Return the table of docs/attacks/demixing.md."""
    heads = [
        "images", "scheme", "SSIM", "SSIM of the encoding", "SSIM of the mean color",
        "identified", "by chance",
    ]  # fmt: skip
    shown = (
        [row["data"], row["scheme"], *(f"{float(row[name]):.2f}" for name in FIGURES[:5])]
        for row in rows
    )
    return "\n".join(markdown.table(heads, shown, texts=(0, 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist-5k,photographs")
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument(
        "--seconds", type=float, default=120, help="of processor time to train, for each scheme"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/demixing.csv"))
    options = parsed(parser, threads=1)
    for data in options.data.split(","):
        images = None
        for scheme in options.schemes.split(","):
            asked = (data, scheme, options.seconds, options.seed)
            have = keys_in(options.out, KEYS)
            if tuple(map(str, asked)) in have:
                continue
            images = images or images_of(data, options.seed)
            figures = run(images, SCHEMES[scheme], options.seconds)
            row = {**dict(zip(KEYS, asked, strict=True)), **figures, **surroundings()}
            add(options.out, FIELDS, row)
    print(json.dumps(summary(rows_of(options.out))))


if __name__ == "__main__":
    main()

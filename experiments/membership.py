"""Measure membership inference on networks trained on plain images and on encodings.

    python -m experiments.membership --schemes plain,inside-4,cross-4 --seeds 0

A network is trained on some images of Fashion-MNIST; two attacks decide for these and for as many
others whether they were trained on. Shadow networks are trained by the same loop, for the same
number of epochs, on their own encodings. The plain run is long enough to memorize its images;
training on encodings is slower and gets twice as many epochs. Each finished scheme adds its figures
to the CSV file; schemes that the file already contains are skipped. The last line printed is a JSON
object: for each scheme the areas under the curves with their intervals, as means over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean

import numpy as np
from torch import nn

from experiments import markdown
from experiments.command_line import parsed
from experiments.records import add, keys_in, rows_of, surroundings
from instahide import EncodedLoader, Encoder, ImageTable, Scheme, open_pool, open_split
from instahide.attacks.base import ThreatModel
from instahide.attacks.budget import Budget
from instahide.attacks.membership import LikelihoodRatio, LossThreshold
from instahide.attacks.shadow_models import Train
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.membership import with_candidates
from instahide.audit.scoring.scores import score
from instahide.training import training_loop
from instahide.training.evaluate import accuracy, table_batches
from instahide.training.models import build
from instahide.training.settings import TrainSettings

SCHEMES = {"plain": Scheme.plain(), "inside-4": Scheme.inside(4), "cross-4": Scheme.cross(4)}
EPOCHS = {"plain": 20, "inside-4": 40, "cross-4": 40}
BATCH_SIZE, LR = 64, 0.05
#: What a run is told apart by.
KEYS = ("data", "images", "networks", "scheme", "seed")
FIELDS = [
    *KEYS, "epochs", "attack", "measure", "value", "seconds",
    "threads", "torch", "python", "platform", "commit",
]  # fmt: skip


def trainer(name: str, public: ImageTable | None) -> Train:
    """Return a function that trains a new network in the way the attacked one was trained."""
    scheme = SCHEMES[name]
    # So few steps have no use for a moving average.
    settings = TrainSettings.from_values(
        {"epochs": EPOCHS[name], "batch_size": BATCH_SIZE, "lr": LR, "ema": 0}
    )

    def train(images: ImageTable) -> nn.Module:
        network = build("small", images.shape[0], len(images.classes), sign_invariant=scheme.mask)
        training_loop.train(
            network, EncodedLoader(Encoder(scheme, images, public), BATCH_SIZE), settings
        )
        return network.eval()

    return train


def run(
    asked: dict[str, object], train: Train, public: ImageTable | None
) -> list[dict[str, object]]:
    """Return all figures of both attacks, and the accuracies of the attacked network."""
    members, others, test = images_of(asked)
    scheme = SCHEMES[str(asked["scheme"])]
    victim = train(members)
    figures: list[dict[str, object]] = [
        {
            "attack": "",
            "measure": f"accuracy_{name}",
            "value": accuracy(victim, table_batches(of))[0],
        }
        for name, of in (("members", members), ("test", test))
    ]
    seen = observe(members, public, scheme, ThreatModel())
    observation, truth = with_candidates(seen, victim, members, others)
    for attack in (LossThreshold(), LikelihoodRatio(int(str(asked["networks"])), train)):
        began = time.perf_counter()
        found = attack.run(observation, Budget(), say)
        seconds = round(time.perf_counter() - began, 1)
        values = dict(found.statistics) | dict(score(found, observation, truth).summary)
        figures += [
            {"attack": attack.name, "measure": name, "value": f"{value:.6g}", "seconds": seconds}
            for name, value in values.items()
        ]
    return figures


def images_of(asked: dict[str, object]) -> tuple[ImageTable, ImageTable, ImageTable]:
    """Return members, non-members and test images; the seed selects the first two."""
    train, test = open_split(str(asked["data"]))
    count = int(str(asked["images"]))
    order = np.random.default_rng(int(str(asked["seed"]))).permutation(len(train))
    members, others = (train.subset(order[part : part + count]) for part in (0, count))
    return members, others, test.subset(slice(0, 2000))


def say(what: str, share: float) -> None:
    print(f"{100 * share:3.0f}%  {what}", flush=True)


def summary(rows: list[dict[str, str]], size: dict[str, object]) -> dict[str, object]:
    """Return the means over seeds of the runs of this size."""
    mine = [row for row in rows if all(row[name] == str(size[name]) for name in size)]
    figures: dict[str, object] = dict(size)
    for scheme in dict.fromkeys(row["scheme"] for row in mine):
        found: dict[str, list[float]] = {}
        for row in mine:
            short = row["measure"].removeprefix("membership_")
            if row["scheme"] == scheme and short.startswith(("accuracy", "auc", "true_at")):
                found.setdefault(f"{row['attack']} {short}".strip(), []).append(float(row["value"]))
        figures[scheme] = {name: round(mean(values), 4) for name, values in found.items()}
    return figures


def table(rows: list[dict[str, str]]) -> str:
    """Return the table of docs/attacks/membership.md."""
    heads = [
        "images", "shadow networks", "scheme", "accuracy, training / test images", "attack", "AUC",
        "true positive rate at 1% false positives",
    ]  # fmt: skip
    shown = []
    for run_of in dict.fromkeys(tuple(row[name] for name in KEYS) for row in rows):
        _, images, networks, scheme, _ = run_of
        values = {
            (row["attack"], row["measure"]): float(row["value"])
            for row in rows
            if tuple(row[name] for name in KEYS) == run_of
        }
        own, test = (values["", f"accuracy_{name}"] for name in ("members", "test"))
        for attack in ("membership-loss", "membership"):
            cells = [
                "{:.3f} ({:.3f} to {:.3f})".format(
                    *(values[attack, f"membership_{name}{end}"] for end in ("", "_low", "_high"))
                )
                for name in ("auc", "true_at_1_percent_false")
            ]
            accuracies = f"{own:.3f} / {test:.3f}"
            shown.append([images, networks, scheme, accuracies, f"`{attack}`", *cells])
    return "\n".join(markdown.table(heads, shown, texts=(0, 2, 4)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=500, help="trained on, and as many others")
    parser.add_argument("--networks", type=int, default=8, help="shadow networks, an even number")
    parser.add_argument("--schemes", default="plain,inside-4,cross-4")
    parser.add_argument("--seeds", default="0", help="of the choice of images: 0,1,2")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/membership.csv"))
    options = parsed(parser, threads=1)
    size = {name: getattr(options, name) for name in ("data", "images", "networks")}
    for seed in map(int, options.seeds.split(",")):
        for scheme in options.schemes.split(","):
            asked: dict[str, object] = {**size, "scheme": scheme, "seed": seed}
            have = keys_in(options.out, KEYS)
            if tuple(str(asked[name]) for name in KEYS) in have:
                continue
            shape = open_split(options.data).train.shape
            public = open_pool("photos", shape) if SCHEMES[scheme].public_k else None
            known = {**asked, "epochs": EPOCHS[scheme], **surroundings()}
            figures = run(asked, trainer(scheme, public), public)
            add(options.out, FIELDS, *({**known, **row} for row in figures))
    print(json.dumps(summary(rows_of(options.out), size)))


if __name__ == "__main__":
    main()

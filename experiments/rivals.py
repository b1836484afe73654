"""Measure rivals that are not encoders: DP-SGD, and federated training on plain images.

    python -m experiments.rivals --threads 1

The images, the passes over them, the private images and the small network are those of
`experiments.encoders`, so that both fill one table (`experiments.rivals_table`). DP-SGD has a noise
multiplier of 1, and group instead of batch normalization. Three federated clients have a third of
the images each, take turns in Flower's simulation, and send their weights after each pass.

What others see of these rivals is updates. Gradient inversion attacks the gradient of one private
image, whose label it knows, at the first weights; larger batches tell less. DP-SGD clips this
gradient and adds its noise, as for a batch. Each cell adds a row to the CSV file; cells that the
file already contains are skipped. Seconds are CPU time. The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments import federated
from experiments.choices import privately
from experiments.command_line import parsed
from experiments.encoders import BLOCKS, EPOCHS, PRIVATE, chosen, photographs
from experiments.records import add, missing, rows_of, surroundings
from instahide import open_split
from instahide.attacks.base import LocalTraining, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.gradients.inverting import InvertingGradients
from instahide.audit.client_update import observe_update
from instahide.audit.scoring.scores import score
from instahide.data import Split
from instahide.encryption.scheme import Scheme
from instahide.training.models import build

OUT = Path("experiments/results/rivals.csv")
#: Noise multiplier and clipping norm of DP-SGD: `privately` has the app's norm.
NOISE, NORM = 1.0, 1.0
#: Attacked gradients, and iterations of the attack on each.
ATTACKED, ITERATIONS = 10, 1000
KEYS = ("data", "rival", "seed")
FIELDS = [
    *KEYS, "model", "images", "epochs", "accuracy", "epsilon", "delta", "recovered", "attacked",
    "ssim", "training_seconds", "attack_seconds", "threads", "torch", "python", "platform",
    "commit",
]  # fmt: skip

Gradients = Mapping[str, Tensor]


def dp_sgd(source: str, split: Split, epochs: int, seed: int) -> dict[str, object]:
    """Train with DP-SGD; return accuracy, epsilon and delta, and the CPU time."""
    started = time.process_time()
    found = privately(NOISE, split, epochs, seed)
    return found | {"training_seconds": round(time.process_time() - started, 1)}


def federated_plain(source: str, split: Split, epochs: int, seed: int) -> dict[str, object]:
    """Train in a federation; Flower's processes do not tell their CPU time."""
    asked = {
        "data": source, "images": len(split.train), "rounds": epochs,
        "local_epochs": 1, "partition": "iid", "scheme": "plain", "seed": seed,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return {"accuracy": federated.run(asked, Path(folder))["accuracy"]}


def as_it_is(gradients: Gradients) -> Gradients:
    return gradients


def private(gradients: Gradients) -> Gradients:
    """Return the gradient of one image, clipped and with noise (Abadi et al., algorithm 1)."""
    norm = torch.cat([values.flatten() for values in gradients.values()]).norm()
    share = (NORM / norm).clamp(max=1)
    return {
        name: values * share + NOISE * NORM * torch.randn_like(values)
        for name, values in gradients.items()
    }


class Rival(NamedTuple):
    """The network of a rival, how it trains, and what it does to a gradient that others see."""

    model: str
    train: Callable[[str, Split, int, int], dict[str, object]]
    sent: Callable[[Gradients], Gradients]


RIVALS = {
    "dp-sgd": Rival("small-group", dp_sgd, private),
    "federated-plain": Rival("small", federated_plain, as_it_is),
}


def inverted(split: Split, rival: Rival, seed: int) -> dict[str, object]:
    """Attack the gradients of some private images, one at a time."""
    torch.manual_seed(seed)
    images, _ = chosen(split, seed)
    channels, classes = images.shape[0], len(images.classes)
    network = build(rival.model, channels, classes, sign_invariant=False, seed=seed)
    attack = InvertingGradients(iterations=ITERATIONS, starts=1, seed=seed)
    started, found = time.process_time(), []
    for row in range(0, PRIVATE, PRIVATE // ATTACKED):
        observation, truth = observe_update(
            images, None, Scheme.plain(), network, np.array([row]), LocalTraining()
        )
        update = replace(observation.update, values=rival.sent(observation.update.values))
        seen = replace(observation, update=update)
        found.append(score(attack.run(seen, Budget(), no_progress), seen, truth).summary)
    return {
        "recovered": int(sum(figures["images_recognizable"] for figures in found)),
        "attacked": len(found),
        "ssim": round(float(np.mean([figures["ssim_mean"] for figures in found])), 4),
        "attack_seconds": round(time.process_time() - started, 1),
    }


def measure(data: str, name: str, seed: int) -> dict[str, object]:
    """Return a row of the table without its key."""
    rival, epochs = RIVALS[name], EPOCHS[data]
    with tempfile.TemporaryDirectory() as folder:
        source = photographs(Path(folder)) if data == "photographs" else data
        split = open_split(source)
        return {
            "model": rival.model, "images": len(split.train), "epochs": epochs,
            **rival.train(source, split, epochs, seed), **inverted(split, rival, seed),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=",".join(BLOCKS))
    parser.add_argument("--rivals", default=",".join(RIVALS))
    parser.add_argument("--seeds", default="0", help="for instance 0,1,2")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parsed(parser)
    cells = [
        (data, name, seed)
        for seed, data, name in product(
            map(int, options.seeds.split(",")), options.data.split(","), options.rivals.split(",")
        )
    ]
    for cell in missing(options.out, KEYS, cells):
        print(*cell, flush=True)
        row = {**dict(zip(KEYS, cell, strict=True)), **measure(*cell), **surroundings()}
        add(options.out, FIELDS, row)
    rows = rows_of(options.out)
    print(json.dumps({f"{row['data']} {row['rival']}": row["accuracy"] for row in rows}))


if __name__ == "__main__":
    main()

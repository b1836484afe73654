"""Measure macro AUROC of several findings with plain training and with InstaHide.

    python -m experiments.multilabel --data digit-pairs --schemes plain,inside-4,cross-4

``digit-pairs`` are two MNIST digits side by side, with a finding for each of ten digits.
``clothes`` are images of Fashion-MNIST with five findings that are facts of the garment. Each
finished run adds one row to the CSV file; runs that the file already contains are skipped, and an
interrupted run continues from its last epoch. The last line printed is a JSON object with the means
over seeds and the drops from plain training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from torchmetrics.functional.classification import binary_calibration_error

from experiments.command_line import parsed
from experiments.records import by_scheme, rows_of, run_missing
from instahide.data import ImageTable, Split, open_pool, open_split
from instahide.data.splits import make_split
from instahide.encryption.encoder import Encoder
from instahide.training.data.held_out import hold_out
from instahide.training.data.private import PrivateData
from instahide.training.data.target_scale import target_scale
from instahide.training.device import pick_device, pick_precision
from instahide.training.distributed.processes import ALONE
from instahide.training.evaluate import predicted, table_batches
from instahide.training.models import build
from instahide.training.progress import Lines
from instahide.training.run_folder import RunFolder
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer

FIELDS = [
    "data",
    "scheme",
    "seed",
    "epochs",
    "images",
    "macro_auroc",
    "encrypted_macro_auroc",
    "macro_f1",
    "calibration_error",
    "seconds",
    "threads",
    "precision",
    "torch",
    "python",
    "platform",
    "commit",
]
#: Findings of a garment, and the classes of Fashion-MNIST that have them.
GARMENTS: Mapping[str, tuple[str, ...]] = {
    "worn on the upper body": ("T-shirt/top", "Pullover", "Dress", "Coat", "Shirt"),
    "has long sleeves": ("Pullover", "Coat", "Shirt"),
    "covers the legs": ("Trouser", "Dress"),
    "is footwear": ("Sandal", "Sneaker", "Ankle boot"),
    "has a closed shape": ("Sneaker", "Ankle boot", "Bag"),
}
#: Training images of `clothes`; each digit of `digit_pairs` is in as many pairs.
CLOTHES, PAIRS_EACH = 6_000, 2


def digit_pairs() -> Split:
    """Two MNIST digits side by side, 28 x 56 grey pixels."""
    generator = np.random.default_rng(0)
    return make_split(*(paired(part, generator) for part in open_split("mnist-5k")))


def paired(
    images: ImageTable, generator: np.random.Generator, rounds: int = PAIRS_EACH
) -> ImageTable:
    """Pairs of ``images``, with a finding for each class; of an odd number one is left out."""
    even = len(images) // 2 * 2
    halves = [generator.permutation(even).reshape(-1, 2) for _ in range(rounds)]
    left, right = np.concatenate(halves).T
    pixels = np.concatenate([images.pixels[left], images.pixels[right]], axis=3)
    findings = np.zeros((len(left), len(images.classes)), np.float32)
    for side in (left, right):
        findings[np.arange(len(side)), images.labels[side]] = 1
    return ImageTable.from_arrays(pixels, findings, images.classes, task="multi-label")


def clothes() -> Split:
    """Images of Fashion-MNIST with the findings `GARMENTS`."""
    train, test = open_split("fashion-mnist")
    has = np.array(
        [[name in garments for garments in GARMENTS.values()] for name in train.classes], np.float32
    )

    def described(images: ImageTable) -> ImageTable:
        labels = has[images.labels]
        return replace(images, labels=labels, classes=tuple(GARMENTS), task="multi-label")

    return Split(described(train.subset(slice(0, CLOTHES)).measured()), described(test))


DATA: Mapping[str, Callable[[], Split]] = {"digit-pairs": digit_pairs, "clothes": clothes}


def settings_of(data: str, scheme: str, seed: int, epochs: int) -> TrainSettings:
    """The settings of a scheme such as ``cross-4``, a kind and k."""
    kind, *k = scheme.split("-")
    values = {"data": data, "scheme": kind, "seed": seed, "epochs": epochs}
    return TrainSettings.from_values(values | ({"k": int(k[0])} if k else {}))


def trainer_of(split: Split, settings: TrainSettings) -> Trainer:
    """Training on ``split``, counted in no ledger."""
    device = pick_device(settings.device)
    scheme = settings.encryption(split.train.task)
    public = open_pool(settings.public, split.train.shape) if scheme.public_k else None
    train, held_out = hold_out(settings, split.train)
    split = Split(train, split.test)
    encoder = Encoder(scheme, split.train, public, device=device)
    scale = target_scale(split.train, ALONE)
    material = PrivateData(settings, scheme, split, public, encoder, scale, held_out=held_out)
    card = material.card
    model = build(
        card.model,
        card.shape[0],
        len(card.classes),
        sign_invariant=card.sign_invariant,
        seed=settings.seed,
    )
    return Trainer(material, model, device, pick_precision(settings.precision, device))


def run(split: Split, settings: TrainSettings, folder: Path) -> dict[str, object]:
    """Train in ``folder``, or continue the run there; ``seconds`` is the training time."""
    trainer = trainer_of(split, settings)
    trainer.run(RunFolder.open(folder, settings, resume=True), Lines(Console()))
    batches, outputs = table_batches(split.test), trainer.card.outputs
    found, truth = predicted(trainer.model, batches, outputs, precision=trainer.precision)
    metrics = trainer.metrics
    queried = metrics.get("encrypted_macro_auroc")
    return {
        "images": len(split.train),
        "macro_auroc": round(metrics["macro_auroc"], 4),
        "encrypted_macro_auroc": None if queried is None else round(queried, 4),
        "macro_f1": round(metrics["macro_f1"], 4),
        "calibration_error": round(
            float(binary_calibration_error(found.flatten(), truth.long().flatten())), 4
        ),
        "seconds": round(sum(record.seconds for record in trainer.history), 1),
        "precision": str(trainer.precision).removeprefix("torch."),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digit-pairs", help="one of digit-pairs, clothes")
    parser.add_argument("--schemes", default="plain,inside-4,cross-4")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/multilabel.csv"))
    options = parsed(parser)
    split = DATA[options.data]()

    def measure(scheme: str, seed: int, folder: Path) -> dict[str, object]:
        return run(split, settings_of(options.data, scheme, seed, options.epochs), folder)

    run_missing(options.out, FIELDS, vars(options), (options.data, options.epochs), measure)
    rows = rows_of(options.out)
    figures = by_scheme(rows, options.data, options.epochs, "macro_auroc", 4)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

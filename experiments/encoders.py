"""Put instance encoders under the same attackers, and measure what each costs in accuracy and time.

    python -m experiments.encoders --threads 1

A cell is an encoder, a set of images and a seed. A network is trained on encodings that are new in
each epoch, and tested as the encoder's users would test it. Then 100 training images are encoded
five times each under new keys, and attackers who use nothing of an encoder but its encodings attack
them: learned inversion, linkage of encodings, linkage with known images, and distinguishing. They
have other images of the same kind. Attackers stop after a number of steps, so that a busy machine
makes no difference. Each cell adds a row to the CSV file; cells that the file already contains are
skipped, so that the same command continues after it was stopped.

Images: scikit-learn's digits, Fashion-MNIST, and patches of scikit-image's photographs in color,
whose class is the photograph. The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from experiments.command_line import parsed
from experiments.photographs import scikit_image_classes
from experiments.records import add, percent, rows_of, surroundings
from instahide import ImageTable, open_pool, open_split
from instahide.attacks.any_encoder.distinguishing import Distinguishing
from instahide.attacks.any_encoder.inversion import LearnedInversion
from instahide.attacks.any_encoder.linkage import KnownImageLinkage, Linkage
from instahide.attacks.base import Attack, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.audit.ground_truth import observe, observe_pairs
from instahide.audit.scoring.scores import score
from instahide.data import Split
from instahide.encryption.encoders.base import InstanceEncoder, Published, Setting
from instahide.encryption.encoders.registry import encoder_named
from instahide.encryption.encoders.table_encoder import open_encoder
from instahide.encryption.privacy import DELTA
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer

OUT = Path("experiments/results/encoders.csv")
PATCHES, DENSE = "experiments.encoder_networks:patches", "experiments.encoder_networks:dense"
#: Images: the source, and the side of a block or patch that divides them.
BLOCKS = {"digits": 2, "fashion-mnist": 4, "photographs": 4}
#: Passes over the training images: about as many steps for each set.
EPOCHS = {"digits": 60, "fashion-mnist": 5, "photographs": 30}
#: Patches of each photograph.
OF_EACH = 250
#: Private images that are attacked, encodings of each, images of the attackers, and pairs.
PRIVATE, COPIES, SHADOW, ROUNDS = 100, 5, 2000, 4
#: Encodings of which the time is measured.
TIMED = 1000


class Rival(NamedTuple):
    """An encoder with its settings, and the network that fits its encodings."""

    encoder: str
    settings: dict[str, Setting]
    model: str = "small"


def rivals(data: str) -> dict[str, Rival]:
    """Return the encoders of the table for a set of images."""
    block = BLOCKS[data]
    return {
        "plain": Rival("plain", {}),
        "instahide-4": Rival("instahide", {"k": 4}),
        "instahide-6": Rival("instahide", {"k": 6}),
        "instahide-inside-4": Rival("instahide", {"k": 4, "private_k": 4, "c2": 0.0}),
        "mixup-4": Rival("mixup", {"k": 4}),
        "noisy-mixup-4": Rival("noisy-mixup", {"k": 4, "noise": 0.5}),
        "dp-instahide-4": Rival("dp-instahide", {"k": 4, "noise": 0.5}),
        "neuracrypt": Rival("neuracrypt", {"patch": block, "width": 64, "depth": 4}, PATCHES),
        "block-scrambling": Rival("block-scrambling", {"block": block}, DENSE),
    }


KEYS = ("data", "encoder", "seed")
FIGURES = (
    "linkage_auc", "linkage_auc_low", "linkage_auc_high", "linkage_true_at_1_percent_false",
    "matched", "matched_low", "matched_high", "matched_by_chance",
    "distinguished", "distinguished_low", "distinguished_high",
)  # fmt: skip
FIELDS = [
    *KEYS, "settings", "model", "images", "epochs", "accuracy", "recovered",
    "recovered_by_chance", "ssim", *FIGURES, "epsilon", "delta", "encode_milliseconds",
    "values_per_value", "inversion_steps", "matching_steps", "training_seconds", "attack_seconds",
    "threads", "torch", "python", "platform", "commit",
]  # fmt: skip


def photographs(folder: Path) -> str:
    """Write patches of photographs to a file, and return its path; the class is the photograph."""
    classes = scikit_image_classes(OF_EACH)
    numbers = np.repeat(np.arange(len(classes)), [len(crops) for crops in classes.values()])
    path = folder / "photographs.npz"
    np.savez(path, x=np.concatenate(list(classes.values())), y=numbers)
    return str(path)


def training(source: str, rival: Rival, epochs: int, seed: int, ledger: Path) -> Trainer:
    """Return a training on encodings of ``source``, ready to run."""
    texts = [f"{name}={value}" for name, value in rival.settings.items()]
    values: dict[str, Any] = {
        "data": source, "encoder": rival.encoder, "encoder_settings": texts, "model": rival.model,
        "epochs": epochs, "seed": seed, "ledger": str(ledger), "precision": "float32",
    }  # fmt: skip
    values |= optimizer_of(rival.model)
    # The table has no encrypted queries.
    return Trainer.open(TrainSettings.from_values(values).model_copy(update={"queries": 0}))


def optimizer_of(model: str) -> dict[str, Any]:
    """Return settings of the training that fit a network; the defaults fit the small one."""
    return {} if model == "small" else {"optimizer": "adamw", "lr": 2e-3}


def accuracy(source: str, data: str, rival: Rival, seed: int, ledger: Path) -> dict[str, Any]:
    """Train on encodings, and test as a user of the encoder does."""
    started = time.process_time()
    job = training(source, rival, EPOCHS[data], seed, ledger)
    job.run()
    return {
        "accuracy": percent(job.metrics["accuracy"]),
        "epochs": EPOCHS[data],
        "training_seconds": round(time.process_time() - started, 1),
    }


def attacked(
    split: Split, method: InstanceEncoder, seed: int, steps: tuple[int, int]
) -> dict[str, Any]:
    """Encode private images, and return what attackers find."""
    torch.manual_seed(seed)
    private, shadow = chosen(split, seed)
    pool = public_of(method, private)
    threat = ThreatModel(
        labels="none", public="none" if pool is None else "images", shadow=True,
        encodings_per_image=COPIES, known_images=True,
    )  # fmt: skip
    started = time.process_time()
    seen = observe(private, pool, method, threat, shadow=shadow)
    pairs = observe_pairs(private, pool, method, threat, shadow=shadow, rounds=ROUNDS)
    inversion, matching = steps
    found: dict[str, float] = {}
    for attack, (observation, truth) in {
        LearnedInversion(inversion): seen, Linkage(matching): seen,
        KnownImageLinkage(matching): seen, Distinguishing(matching): pairs,
    }.items():  # fmt: skip
        found |= figures(attack, observation, truth)
    return {
        "recovered": int(found["images_recognizable"]),
        "recovered_by_chance": found["recognizable_by_chance"],
        "ssim": round(found["ssim_mean_of_best"], 4),
        **{name: round(found[name], 4) for name in FIGURES},
        "attack_seconds": round(time.process_time() - started, 1),
        "inversion_steps": inversion,
        "matching_steps": matching,
    }


def chosen(split: Split, seed: int) -> tuple[ImageTable, ImageTable]:
    """Return the private images that are attacked, and the attackers' own."""
    order = np.random.default_rng(seed).permutation(len(split.train))
    private, shadow = np.split(order[: PRIVATE + SHADOW], [PRIVATE])
    return split.train.subset(np.sort(private)), split.train.subset(np.sort(shadow))


def figures(attack: Attack[Any], observation: Any, truth: Any) -> dict[str, float]:
    return dict(score(attack.run(observation, Budget(), no_progress), observation, truth).summary)


def public_of(method: InstanceEncoder, images: ImageTable) -> ImageTable | None:
    return open_pool("photos", images.shape) if method.uses_public else None


def cost(split: Split, method: InstanceEncoder) -> dict[str, Any]:
    """Measure the time of an encoding, and count its values for each value of an image."""
    images = split.train
    encoder = open_encoder(method, images, public_of(method, images))
    rows = np.arange(TIMED) % len(images)
    encoder.encode(rows)  # Compiled loops are compiled.
    started = time.process_time()
    made = encoder.encode(rows)
    elapsed = time.process_time() - started
    published = Published(len(images), images.shape, images.std, COPIES)
    epsilon = method.epsilon(published, DELTA)
    return {
        "images": len(images),
        "encode_milliseconds": float(f"{1000 * elapsed / TIMED:.3g}"),
        "values_per_value": round(made.images[0].numel() / np.prod(images.shape), 2),
        "epsilon": "" if np.isinf(epsilon) else float(f"{epsilon:.4g}"),
        "delta": DELTA,
    }


def measure(
    data: str, name: str, seed: int, folder: Path, steps: tuple[int, int]
) -> dict[str, Any]:
    """Return a row of the table."""
    rival = rivals(data)[name]
    method = encoder_named(rival.encoder, rival.settings)
    source = photographs(folder) if data == "photographs" else data
    split = open_split(source)
    return {
        "data": data, "encoder": name, "seed": seed,
        "settings": " ".join(f"{key}={value}" for key, value in rival.settings.items()),
        "model": rival.model.rpartition(":")[2],
        **accuracy(source, data, rival, seed, folder / "ledger.sqlite"),
        **attacked(split, method, seed, steps),
        **cost(split, method),
        **surroundings(),
    }  # fmt: skip


def cells(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield data, encoder and seed of each cell, all encoders of a set of images first."""
    for seed in map(int, options.seeds.split(",")):
        for data in options.data.split(","):
            for name in options.encoders.split(",") if options.encoders else rivals(data):
                yield data, name, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=",".join(BLOCKS))
    parser.add_argument("--encoders", help="by default all of the table")
    parser.add_argument("--seeds", default="0", help="for instance 0,1,2")
    parser.add_argument("--inversion-steps", type=int, default=600)
    parser.add_argument("--matching-steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parsed(parser)
    steps = options.inversion_steps, options.matching_steps
    for data, name, seed in cells(options):
        key = dict(zip(KEYS, (data, name, str(seed)), strict=True))
        if any(key.items() <= row.items() for row in rows_of(options.out)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            add(options.out, FIELDS, measure(data, name, seed, Path(folder), steps))
    rows = rows_of(options.out)
    print(json.dumps({f"{row['data']} {row['encoder']}": row["accuracy"] for row in rows}))


if __name__ == "__main__":
    main()

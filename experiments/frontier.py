"""Measure privacy against accuracy for T encodings of each image.

    python -m experiments.frontier --threads 1
    python -m experiments.frontier --threads 1 --data color-patches --epochs 60

A point is a scheme, a number T of fixed encodings of each image, and a label mode. Its accuracy is
that of the small network on plain test images, after the same number of steps for every T. Its
privacy is what attacks recover of some private images, each encrypted T times: the share identified
by the attack that identifies most, and the SSIM of the attack with the highest SSIM.

The attacker knows which encodings belong to the same image, knows the public pool and has images of
its own: other digits, or patches of other parts of the same photographs. Points come in rounds, so
that the first ones make a chart by themselves. Each adds a row to the CSV file; points that the
file already contains are skipped. Seconds are CPU time. The last line printed is a JSON object.

Only schemes are shown. The attacks here use the structure of mixes, and refuse other encoders; the
attacks that take any encoder look at one encoding at a time, so that a point of another encoder
would not depend on T and would look safer than it is. `experiments.encoders` compares encoders.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments import color_patches
from experiments.command_line import parsed
from experiments.reconstruction import processor_seconds
from experiments.records import add, missing, percent, rows_of, surroundings
from instahide import Encoder, ImageTable, Scheme, open_pool, open_split
from instahide.attacks.averaging import Averaging, AveragingAbsolute
from instahide.attacks.base import (
    AssignedImages,
    Attack,
    EncodingObservation,
    Finding,
    Progress,
    RecoveredImages,
    ThreatModel,
    no_progress,
)
from instahide.attacks.budget import Budget
from instahide.attacks.demixing import Demixing
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring import metrics
from instahide.audit.scoring.matching import originals_of
from instahide.audit.scoring.reconstruction import HALF, score_reconstruction
from instahide.data import Split
from instahide.training.distributed.processes import Batch, Batches
from instahide.training.evaluate import accuracy, table_batches
from instahide.training.models import build
from instahide.training.settings import TrainSettings
from instahide.training.training_loop import train

OUT = Path("experiments/results/frontier.csv")
SCHEMES = {
    "plain": Scheme.plain(),
    "mixup-4": Scheme.mixup(4),
    "inside-2": Scheme.inside(2),
    "inside-4": Scheme.inside(4),
    "cross-4": Scheme.cross(4),
    "cross-6": Scheme.cross(6),
}
#: Encodings of each image, the most telling numbers first.
COPIES = (10, 1, 50, 5, 20, 2)
#: In color, where a point takes longer: fewer schemes and numbers, and so many training images.
COLOR_SCHEMES, COLOR_COPIES = ("mixup-4", "inside-4", "cross-4", "cross-6"), (10, 1, 50)
COLOR_IMAGES = 4_000
#: Steps of a network that takes mixes apart, so that a busy machine makes no difference.
DEMIXING = 200
BATCH_SIZE = TrainSettings().batch_size
#: What a point is told apart by.
KEYS = ("data", "scheme", "copies", "labels", "private", "epochs", "seed")
#: Of an attack; the first ones are compared.
COMPARED = ("identified", "ssim", "above_half")
CLAIMS = ("claimed", "claimed_rightly")
MEASURES = (
    "accuracy", *COMPARED, "identified_by", "ssim_by", *CLAIMS, "attacks",
    "training_seconds", "attack_seconds",
)  # fmt: skip


class Point(NamedTuple):
    """A point; ``labels`` are "soft" or "renormalised", or "hidden" from the attacker."""

    scheme: str
    copies: int
    labels: str = "soft"

    @property
    def settings(self) -> Scheme:
        if self.labels == "renormalised":
            return Scheme.cross(SCHEMES[self.scheme].k, label_mode="renormalised")
        return SCHEMES[self.scheme]


def points(data: str = "mnist-5k") -> Iterator[Point]:
    """Yield all schemes at one T after the other; then, for some of them, other label modes."""
    yield Point("plain", 1)
    if data == color_patches.NAME:
        yield from (Point(name, copies) for copies in COLOR_COPIES for name in COLOR_SCHEMES)
        return
    rounds = {
        "soft": [name for name in SCHEMES if name != "plain"],
        "hidden": ["inside-4", "cross-4"],
        "renormalised": ["cross-4", "cross-6"],
    }
    for labels, schemes in rounds.items():
        yield from (Point(name, copies, labels) for copies in COPIES for name in schemes)


@cache
def split_of(data: str) -> Split:
    """Return training and test images; of patches in color, some of those for training."""
    if data != color_patches.NAME:
        return open_split(data)
    train, test = open_split(color_patches.source())
    order = np.random.default_rng(0).permutation(len(train))
    return Split(train.subset(order[:COLOR_IMAGES]), test)


class FixedEncodings:
    """Batches of fixed encodings, in an order that continues from pass to pass.

    Args:
        scheme: encodes the images, once.
        images: to encrypt.
        copies: encodings of each image.
        batch_size: encodings in a batch.
    """

    def __init__(self, scheme: Scheme, images: ImageTable, copies: int, batch_size: int) -> None:
        encoder = Encoder(scheme, images, public_of(scheme, images), dtype=torch.float16)
        made = [encoder.encode(np.arange(len(images))) for _ in range(copies)]
        self.encodings = torch.cat([part.images for part in made])
        self.labels = torch.cat([part.labels for part in made])
        self.steps = -(-len(images) // batch_size)
        self._rows = self._endless(batch_size)

    def __len__(self) -> int:
        """Batches in a pass: as many as for one encoding of each image."""
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.steps):
            rows = next(self._rows)
            yield self.encodings[rows].float(), self.labels[rows]

    def _endless(self, batch_size: int) -> Iterator[Tensor]:
        left = torch.empty(0, dtype=torch.int64)
        while True:
            while len(left) < batch_size:
                left = torch.cat([left, torch.randperm(len(self.encodings))])
            yield left[:batch_size]
            left = left[batch_size:]


def learned(scheme: Scheme, split: Split, batches: Batches, epochs: int, seed: int) -> float:
    """Train a network, whose initial weights depend on ``seed``; return its plain test accuracy."""
    network = build(
        "small", split.train.shape[0], len(split.train.classes),
        sign_invariant=scheme.mask, seed=seed,
    )  # fmt: skip
    train(network, batches, TrainSettings.from_values({"epochs": epochs}))
    return accuracy(network, table_batches(split.test)).overall


class Itself:
    """The encoding itself as an attack; with a mask, its absolute values."""

    name = "encoding"
    title = "The encoding itself"
    paper = ""
    observes = EncodingObservation

    def applies(self, observation: EncodingObservation) -> str | None:
        return None

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> RecoveredImages:
        masked = observation.scheme.mask
        shown = observation.encodings.abs() if masked else observation.encodings
        return RecoveredImages(shown, observation.owners(), absolute=masked)


def attacks(scheme: Scheme) -> list[Attack[EncodingObservation]]:
    """Return the attacks to run; with a mask, averaging uses absolute values."""
    averaging = AveragingAbsolute() if scheme.mask else Averaging()
    return [Itself(), averaging, Demixing(DEMIXING), ReconstructionAttack()]


def attacked(point: Point, data: str, private: int, seed: int) -> dict[str, object]:
    """Return the best figures of any attack, and as ``attacks`` the figures of each attack."""
    scheme = point.settings
    observation, truth = observed(point, data, private, seed)
    found = {}
    for attack in attacks(scheme):
        if attack.applies(observation) is None:
            result = attack.run(observation, Budget(), no_progress)
            found[attack.name] = worth(result, observation, truth)
    figures: dict[str, object] = {name: max(f[name] for f in found.values()) for name in COMPARED}
    for name in ("identified", "ssim"):
        figures[f"{name}_by"] = max(found, key=lambda attack: found[attack][name])
    each = (f"{name}={f['identified']:.3f}/{f['ssim']:.3f}" for name, f in found.items())
    claims = found.get(ReconstructionAttack.name, {})
    return figures | {name: claims.get(name, "") for name in CLAIMS} | {"attacks": " ".join(each)}


def observed(
    point: Point, data: str, private: int, seed: int
) -> tuple[EncodingObservation, GroundTruth]:
    """Encrypt some of the training images; the attacker's own images are others of them.

    Training patches in color may overlap, so there the attacker has the test images instead.
    """
    images, test = split_of(data)
    order = np.random.default_rng(seed).permutation(len(images))
    threat = ThreatModel(
        labels="none" if point.labels == "hidden" else "soft",
        shadow=True, grouped=True, encodings_per_image=point.copies,
    )  # fmt: skip
    mine, others = images.subset(order[:private]), images.subset(order[private:])
    shadow = test if data == color_patches.NAME else others
    scheme = point.settings
    return observe(mine, public_of(scheme, images), scheme, threat, shadow=shadow)


def worth(found: Finding, observation: EncodingObservation, truth: GroundTruth) -> dict[str, float]:
    """Return shares of the private images, and the mean SSIM under the best affine map.

    For `ReconstructionAttack`, which estimates the number of images by itself, a private image
    that was not recovered counts as 0.
    """
    assert isinstance(found, RecoveredImages | AssignedImages)
    if isinstance(found, RecoveredImages):
        rows, images = originals_of(found, observation, truth), len(found.images)
        candidates = truth.images.abs() if found.absolute else truth.images
        claims = {}
    else:
        assert found.confidence is not None
        recovered = score_reconstruction(found, truth, observation.mean, observation.std)
        rows, images, candidates = recovered.rows, len(truth.images), truth.images
        figures = recovered.summary(found.confidence, RECOVERED)
        claims = {
            "claimed": figures["claimed"] / images,
            "claimed_rightly": figures["claimed_rightly"],
        }
    ssim = likeness(found.images, truth.images[rows], observation)
    named = metrics.nearest(found.images, candidates) == rows
    sums = (named.sum(), ssim.sum(), (ssim > HALF).sum())
    return {n: float(v) / images for n, v in zip(COMPARED, sums, strict=True)} | claims


def likeness(images: Tensor, originals: Tensor, observation: EncodingObservation) -> Tensor:
    """Return the (m,) SSIM with normalized originals, whose pixels are mapped to 0 to 1."""
    std, mean = (
        torch.tensor(moment)[:, None, None] for moment in (observation.std, observation.mean)
    )
    pixels = (originals * std + mean).clamp(0, 1)
    return metrics.ssim(metrics.best_affine(images, pixels), pixels)


def public_of(scheme: Scheme, images: ImageTable) -> ImageTable | None:
    return pool(images.shape).normalized_like(images) if scheme.public_k else None


@cache
def pool(shape: tuple[int, int, int]) -> ImageTable:
    """Return patches of photographs."""
    return open_pool("photos", shape)


def measure(point: Point, data: str, private: int, epochs: int, seed: int) -> dict[str, object]:
    """Return one row of the CSV file without its key."""
    scheme, split = point.settings, split_of(data)
    began = processor_seconds()
    size = color_patches.BATCH_SIZE if data == color_patches.NAME else BATCH_SIZE
    batches = FixedEncodings(scheme, split.train, point.copies, size)
    right = learned(scheme, split, batches, epochs, seed)
    trained = processor_seconds()
    figures = attacked(point, data, private, seed)
    figures = {n: round(v, 4) if isinstance(v, float) else v for n, v in figures.items()}
    return figures | {
        "accuracy": percent(right),
        "training_seconds": round(trained - began, 1),
        "attack_seconds": round(processor_seconds() - trained, 1),
    }


def summary(rows: list[dict[str, str]]) -> dict[str, object]:
    """Return the number of points, and the accuracy in %, share identified and SSIM of each."""
    figures: dict[str, object] = {"points": len(rows)}
    for row in rows:
        name = f"{row['scheme']} T={row['copies']} {row['labels']}"
        figures[name] = [float(row[n]) for n in ("accuracy", "identified", "ssim")]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist-5k")
    parser.add_argument("--private", type=int, default=50, help="images that are attacked")
    parser.add_argument("--epochs", type=int, default=30, help="steps, in passes over the images")
    parser.add_argument("--seed", type=int, default=0, help="of first weights and private images")
    parser.add_argument("--only", type=int, help="at most so many points more")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parsed(parser)
    size = (options.private, options.epochs, options.seed)
    asked = [(options.data, *point, *size) for point in points(options.data)]
    for key in missing(options.out, KEYS, asked)[: options.only]:
        print(*key, flush=True)
        figures = measure(Point(*key[1:4]), options.data, *size)
        row = dict(zip(KEYS, key, strict=True)) | {n: figures.get(n, "") for n in MEASURES}
        add(options.out, [*row, *surroundings()], row | surroundings())
    print(json.dumps(summary(rows_of(options.out))))


if __name__ == "__main__":
    main()

"""Measure privacy against accuracy for T encodings of each image.

    python -m experiments.frontier --threads 1
    python -m experiments.frontier --threads 1 --data color-patches --epochs 60
    python -m experiments.frontier --threads 1 --encoders "my_package:Blur sigma=2"

A point is a scheme or another encoder, a number T of fixed encodings of each image, and a label
mode. Its accuracy is that of the small network on plain test images, after the same number of steps
for every T. Its privacy is what attacks recover of some private images, each encrypted T times: the
share identified by the attack that identifies most, and the SSIM of the attack with the highest
SSIM.

The attacker knows which encodings belong to the same image, knows the public pool and has images of
its own: other digits, or patches of other parts of the same photographs. Points come in rounds, so
that the first ones make a chart by themselves. Each adds a row to the CSV file; points that the
file already contains are skipped. Seconds are CPU time. The last line printed is a JSON object.

Of other encoders than schemes there are fewer points: those of `experiments.encoders`, and any that
`--encoders` names, each with its settings. The attacks that use the structure of mixes refuse them.
What is left, if encodings are images: the encoding itself, and averaging; and inversion by a
network with a fixed number of steps, also with the mean of what it finds in the encodings of an
image.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments import color_patches
from experiments.command_line import parsed
from experiments.encoders import Rival, optimizer_of, rivals
from experiments.reconstruction import processor_seconds
from experiments.records import add, missing, percent, rows_of, surroundings
from instahide import Encoder, ImageTable, Scheme, open_pool, open_split
from instahide.attacks.any_encoder.inversion import LearnedInversion
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
    require,
)
from instahide.attacks.budget import Budget
from instahide.attacks.demixing import Demixing
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.audit.advice.bench import is_masked
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring import metrics
from instahide.audit.scoring.matching import originals_of
from instahide.audit.scoring.reconstruction import HALF, score_reconstruction
from instahide.data import Split
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.registry import encoder_named, parse_settings
from instahide.encryption.encoders.table_encoder import open_encoder
from instahide.training.data.private import test_inputs
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
#: Other encoders, with settings and networks for images of 28 x 28 or 32 x 32.
ENCODERS = {
    name: rivals("fashion-mnist")[name]
    for name in ("noisy-mixup-4", "dp-instahide-4", "neuracrypt", "block-scrambling")
}
#: Encodings of each image, the most telling numbers first.
COPIES = (10, 1, 50, 5, 20, 2)
ENCODER_COPIES = COPIES[:3]
#: In color, where a point takes longer: fewer schemes and numbers, and so many training images.
COLOR_SCHEMES, COLOR_COPIES = ("mixup-4", "inside-4", "cross-4", "cross-6"), (10, 1, 50)
COLOR_IMAGES = 4_000
#: Steps of networks that take mixes apart, and of those that invert any encoder. Their number is
#: fixed, so that a busy machine makes no difference.
DEMIXING, INVERSION = 200, 600
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
    """A point; ``labels`` are "soft" or "renormalised", or "hidden" from the attacker.

    ``scheme`` is a name in `SCHEMES` or `ENCODERS`, or an encoder with its settings.
    """

    scheme: str
    copies: int
    labels: str = "soft"

    @property
    def method(self) -> InstanceEncoder:
        if self.labels == "renormalised":
            return Scheme.cross(SCHEMES[self.scheme].k, label_mode="renormalised")
        if self.scheme in SCHEMES:
            return SCHEMES[self.scheme]
        return encoder_named(self.rival.encoder, self.rival.settings)

    @property
    def rival(self) -> Rival:
        """The encoder with its settings and network; one that is not of the table has `small`."""
        if self.scheme in ENCODERS:
            return ENCODERS[self.scheme]
        name, *settings = self.scheme.split()
        return Rival(name, parse_settings(settings))


def points(data: str = "mnist-5k") -> Iterator[Point]:
    """Yield all schemes at one T after the other; then, for some, other label modes; then encoders.

    There are no encoders for patches in color.
    """
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
    yield from points_of(ENCODERS)


def points_of(encoders: Iterable[str]) -> Iterator[Point]:
    """Yield points of other encoders than schemes."""
    yield from (Point(name, copies) for copies in ENCODER_COPIES for name in encoders)


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
        method: encodes the images, once.
        images: to encrypt.
        copies: encodings of each image.
        batch_size: encodings in a batch.
    """

    def __init__(
        self, method: InstanceEncoder, images: ImageTable, copies: int, batch_size: int
    ) -> None:
        public = public_of(method, images)
        self.encoder = (
            Encoder(method, images, public, dtype=torch.float16)
            if isinstance(method, Scheme)
            else open_encoder(method, images, public)
        )
        made = [self.encoder.encode(np.arange(len(images))) for _ in range(copies)]
        self.encodings = torch.cat([part.images.half() for part in made])
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


def learned(
    method: InstanceEncoder,
    split: Split,
    batches: Batches,
    epochs: int,
    seed: int,
    *,
    model: str = "small",
    tests: Iterable[Batch] | None = None,
) -> float:
    """Train a network, whose initial weights depend on ``seed``; return its test accuracy.

    ``tests`` are what the network gets for test images; by default the images themselves.
    """
    shape = method.output_shape(split.train.shape)
    network = build(
        model, shape[0], len(split.train.classes), sign_invariant=is_masked(method), seed=seed,
        size=shape[1:],
    )  # fmt: skip
    train(network, batches, TrainSettings.from_values({"epochs": epochs, **optimizer_of(model)}))
    return accuracy(network, table_batches(split.test) if tests is None else tests).overall


class Itself:
    """The encoding itself as an attack; with a mask, its absolute values."""

    name = "encoding"
    title = "The encoding itself"
    paper = ""
    observes = EncodingObservation

    def applies(self, observation: EncodingObservation) -> str | None:
        shape = require(observation.shadow).shape
        return None if observation.encodings.shape[1:] == shape else "Encodings are no images."

    def run(
        self, observation: EncodingObservation, budget: Budget, progress: Progress
    ) -> RecoveredImages:
        masked = is_masked(observation.encoder)
        shown = observation.encodings.abs() if masked else observation.encodings
        return RecoveredImages(shown, observation.owners(), absolute=masked)


def attacks(method: InstanceEncoder) -> list[Attack[EncodingObservation]]:
    """Return the attacks to run; with a mask, averaging uses absolute values."""
    if not isinstance(method, Scheme):
        return [Itself(), Averaging(), LearnedInversion(INVERSION)]
    averaging = AveragingAbsolute() if method.mask else Averaging()
    return [Itself(), averaging, Demixing(DEMIXING), ReconstructionAttack()]


def attacked(point: Point, data: str, private: int, seed: int) -> dict[str, object]:
    """Return the best figures of any attack, and as ``attacks`` the figures of each attack."""
    observation, truth = observed(point, data, private, seed)
    found = {}
    for attack in attacks(point.method):
        if attack.applies(observation) is None:
            result = attack.run(observation, Budget(), no_progress)
            found[attack.name] = worth(result, observation, truth)
            if isinstance(attack, LearnedInversion):
                means = averaged(result, observation)
                found[f"{attack.name}-mean"] = worth(means, observation, truth)
    figures: dict[str, object] = {name: max(f[name] for f in found.values()) for name in COMPARED}
    for name in ("identified", "ssim"):
        figures[f"{name}_by"] = max(found, key=lambda attack: found[attack][name])
    each = (f"{name}={f['identified']:.3f}/{f['ssim']:.3f}" for name, f in found.items())
    claims = found.get(ReconstructionAttack.name, {})
    return figures | {name: claims.get(name, "") for name in CLAIMS} | {"attacks": " ".join(each)}


def averaged(found: RecoveredImages, observation: EncodingObservation) -> RecoveredImages:
    """Return the mean of what was found in the encodings of each image."""
    groups, places = require(observation.groups).unique(return_inverse=True)
    means = [found.images[places == place].mean(dim=0) for place in range(len(groups))]
    return RecoveredImages(torch.stack(means), groups)


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
    method = point.method
    return observe(mine, public_of(method, images), method, threat, shadow=shadow)


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


def public_of(method: InstanceEncoder, images: ImageTable) -> ImageTable | None:
    return pool(images.shape).normalized_like(images) if method.uses_public else None


@cache
def pool(shape: tuple[int, int, int]) -> ImageTable:
    """Return patches of photographs."""
    return open_pool("photos", shape)


def measure(point: Point, data: str, private: int, epochs: int, seed: int) -> dict[str, object]:
    """Return one row of the CSV file without its key."""
    method, split = point.method, split_of(data)
    began = processor_seconds()
    size = color_patches.BATCH_SIZE if data == color_patches.NAME else BATCH_SIZE
    batches = FixedEncodings(method, split.train, point.copies, size)
    tests = test_inputs(batches.encoder, split.test)
    model = "small" if isinstance(method, Scheme) else point.rival.model
    right = learned(method, split, batches, epochs, seed, model=model, tests=tests)
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
    parser.add_argument("--encoders", help="others: name setting=value ..., another one, ...")
    parser.add_argument("--only", type=int, help="at most so many points more")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parsed(parser)
    size = (options.private, options.epochs, options.seed)
    named = [name.strip() for name in (options.encoders or "").split(",") if name.strip()]
    wanted = points_of(named) if named else points(options.data)
    asked = [(options.data, *point, *size) for point in wanted]
    for key in missing(options.out, KEYS, asked)[: options.only]:
        print(*key, flush=True)
        figures = measure(Point(*key[1:4]), options.data, *size)
        row = dict(zip(KEYS, key, strict=True)) | {n: figures.get(n, "") for n in MEASURES}
        add(options.out, [*row, *surroundings()], row | surroundings())
    print(json.dumps(summary(rows_of(options.out))))


if __name__ == "__main__":
    main()

"""Measure where the reconstruction attack stops working, changing one setting at a time.

    python -m experiments.exposure --threads 1
    python -m experiments.exposure --quick

The first command takes hours; ``--quick`` uses few images and trains nothing. Private, public and
shadow photographs are all different (see `experiments.photographs`). The digits are MNIST's;
encoders that are trained on photographs have seen nothing like them. Each finished setting adds a
row to the CSV file; settings that the file already contains are skipped. The last line printed is a
JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from experiments.command_line import parsed
from experiments.photographs import grey, patches
from experiments.reconstruction import CEILING, auc_of, ceiling_figures, processor_seconds, say
from experiments.records import add, keys_in, rows_of, surroundings
from instahide import open_split
from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.attacks.reconstruction.pair_encoder.features import edges_of_square
from instahide.attacks.reconstruction.pair_encoder.selection import default_features
from instahide.attacks.reconstruction.pair_encoder.training import train_pair_encoder
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.reconstruction import score_reconstruction
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

OUT = Path("experiments/results/exposure.csv")
PUBLIC, SHADOW = 5000, 12_000
#: For each encoder that is trained here.
TRAINING = 600.0
MEASURES = (
    "auc", "groups", "mass", "ssim", "ssim_best", "above_half", "recovered",
    "claimed", "claimed_rightly", *CEILING, "seconds", "cpu_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What is attacked, and how.

    Attributes:
        images: "photographs" of 3 x 32 x 32 or "digits" of 1 x 28 x 28.
        kind: "cross" or "inside".
        k: images in a mix.
        private_k: private images in a mix.
        labels: "hidden", "coarse", "soft" or "renormalised".
        count: number of private images.
        copies: encodings of each private image.
        features: "shipped", "untrained", or "trained" by this experiment.
        kin: what this experiment trains an encoder on: "photographs" or "digits".
        shadow: number of images that it trains on.
        told: whether the attacker knows the number of private images, "yes" or "no".
    """

    images: str = "photographs"
    kind: str = "cross"
    k: int = 6
    private_k: int = 2
    labels: str = "hidden"
    count: int = 100
    copies: int = 50
    features: str = "shipped"
    kin: str = "photographs"
    shadow: int = 0
    told: str = "yes"

    @property
    def scheme(self) -> Scheme:
        changes = {"label_mode": "renormalised"} if self.labels == "renormalised" else {}
        if self.kind == "inside":
            return Scheme.inside(self.k, **changes)
        return Scheme.cross(self.k, private_k=self.private_k, **changes)

    @property
    def threat(self) -> ThreatModel:
        seen = {"hidden": "none", "renormalised": "soft"}.get(self.labels, self.labels)
        return ThreatModel(labels=seen, public="none", encodings_per_image=self.copies)  # type: ignore[arg-type]


#: How a changed field of a setting is described.
WORDS = {
    "kind": "{}-dataset",
    "k": "k = {}",
    "private_k": "private images in a mix: {}",
    "labels": "{} labels",
    "count": "{} images",
    "copies": "encodings per image: {}",
    "features": "{} features",
    "kin": "trained on {}",
    "shadow": "{} training images",
    "told": "number of images unknown",
}
PHOTOGRAPHS = Setting()
DIGITS = Setting(images="digits", k=4, count=50)


def settings() -> Iterator[Setting]:
    """Yield all settings; each differs from one of the two above in one thing or in training."""
    yield PHOTOGRAPHS
    yield from (replace(DIGITS, copies=copies) for copies in (50, 20))
    # More encodings of each image are measured in `experiments.reconstruction_kinds`.
    yield from (replace(PHOTOGRAPHS, k=k) for k in (4, 8))
    yield from (replace(PHOTOGRAPHS, private_k=private_k) for private_k in (1, 3))
    yield from (replace(PHOTOGRAPHS, kind="inside", k=k, private_k=k) for k in (2, 4))
    yield from (replace(PHOTOGRAPHS, labels=mode) for mode in ("coarse", "soft", "renormalised"))
    yield replace(PHOTOGRAPHS, count=30)
    for base in (PHOTOGRAPHS, DIGITS):
        yield replace(base, features="untrained")
    for shadow in (500, 2000, SHADOW):
        yield replace(PHOTOGRAPHS, features="trained", shadow=shadow)
    yield replace(DIGITS, features="trained", kin="digits", shadow=1000)
    yield from (replace(base, told="no") for base in (PHOTOGRAPHS, DIGITS))
    yield from (replace(PHOTOGRAPHS, count=count) for count in (300, 1000))


def quick() -> Iterator[Setting]:
    """Yield the same settings with few images and encodings, and without training."""
    small = [
        replace(setting, count=min(setting.count, 20), copies=min(setting.copies, 20))
        for setting in settings()
        if setting.features != "trained"
    ]
    return iter(dict.fromkeys(small))


@cache
def private_images(kind: str, count: int) -> ImageTable:
    """Return photographs of ten arbitrary classes, on which nothing was tuned, or MNIST digits."""
    if kind == "digits":
        return open_split("mnist-5k").train.subset(np.linspace(0, 3999, count).astype(np.int64))
    shown = patches("private", count, 3, likeness=0.6)
    return ImageTable.from_arrays(shown, np.arange(len(shown)) % 10)


@cache
def photographs(group: str, images: str, count: int) -> ImageTable:
    """Return patches of the same shape as ``images``."""
    if images == "digits":
        return ImageTable.from_arrays(grey(patches(group, count, 2, side=28)))
    return ImageTable.from_arrays(patches(group, count, 2))


def shadow_images(setting: Setting) -> ImageTable:
    """Return what the attacker trains on: its own photographs, or digits that are not private."""
    if setting.kin == "digits":
        spare = open_split("mnist-5k").test
        return spare.subset(np.arange(min(setting.shadow, len(spare))))
    return photographs("shadow", setting.images, setting.shadow)


def features_of(setting: Setting, observation: EncodingObservation, seconds: float) -> Tensor:
    if setting.features == "untrained":
        return edges_of_square(observation.encodings)
    if setting.features == "shipped":
        return default_features(observation, None, say)
    shadow = shadow_images(setting).normalized_like(private_images(setting.images, setting.count))
    encoder = train_pair_encoder(shadow, setting.scheme, Budget(seconds), say)
    return encoder.features(observation.encodings)


def run(setting: Setting, training: float) -> dict[str, object]:
    """Return all figures of one setting."""
    scheme = setting.scheme
    public = photographs("public", setting.images, PUBLIC) if scheme.public_k else None
    private = private_images(setting.images, setting.count)
    observation, truth = observe(private, public, scheme, setting.threat)
    if setting.told == "no":
        untold = replace(setting.threat, encodings_per_image=None)
        observation = replace(observation, threat=untold)
    features = features_of(setting, observation, training)
    began, cpu = time.perf_counter(), processor_seconds()
    found = ReconstructionAttack(features=lambda _: features).run(observation, Budget(), say)
    times = {"seconds": time.perf_counter() - began, "cpu_seconds": processor_seconds() - cpu}
    score = score_reconstruction(found, truth, observation.mean, observation.std)
    assert found.confidence is not None
    figures = score.summary(found.confidence, RECOVERED)
    figures |= {"groups": found.statistics["groups"], "auc": auc_of(features, truth)}
    figures |= ceiling_figures(found, observation, truth)
    return figures | times


def in_order(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return ``rows`` in the order of `settings`."""
    order = [tuple(map(str, asdict(setting).values())) for setting in settings()]
    names = [field.name for field in fields(Setting)]
    return sorted(rows, key=lambda row: order.index(tuple(row[name] for name in names)))


def difference(row: dict[str, str]) -> str:
    """Return in words how a setting differs from the base setting of its kind of images."""
    base = asdict(DIGITS if row["images"] == "digits" else PHOTOGRAPHS)
    changed = [name for name in base if row[name] != str(base[name])]
    if "kind" in changed:
        # All images of such a mix are private.
        changed = [name for name in changed if name != "private_k"]
    words = [WORDS[name].format(row[name]) for name in changed]
    return f"{row['images']}: {', '.join(words) or 'base setting'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few images, no training")
    parser.add_argument("--only", type=int, help="at most so many settings more")
    parser.add_argument("--training", type=float, default=TRAINING, help="seconds an encoder")
    parser.add_argument("--out", type=Path, help="CSV file")
    options = parsed(parser)
    out = options.out or (OUT.with_stem("exposure_quick") if options.quick else OUT)
    names = [field.name for field in fields(Setting)]
    have = keys_in(out, names)
    wanted = quick() if options.quick else settings()
    missing = [s for s in wanted if tuple(map(str, asdict(s).values())) not in have]
    for setting in missing[: options.only]:
        print(setting, flush=True)
        figures = run(setting, options.training)
        figures = {n: round(v, 5) if isinstance(v, float) else v for n, v in figures.items()}
        row = asdict(setting) | {name: figures.get(name, "") for name in MEASURES}
        row |= surroundings()
        add(out, list(row), row)
    rows = rows_of(out)
    print(json.dumps({difference(row): row["ssim"] for row in rows}))


if __name__ == "__main__":
    main()

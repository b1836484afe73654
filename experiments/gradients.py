"""Measure what gradient inversion recovers from photographs: plain, with Mixup and InstaHide.

    python -m experiments.gradients

The attacked networks are untrained: one like that of the paper on Deep Leakage from Gradients, and
a small one with batch norm. Private photographs and the public pool come from different photographs
(see `experiments.photographs`), and nothing was tuned on them. The attacker knows the labels only
in batches of several images. Each finished attack adds its figures to the CSV file; attacks that
the file already contains are skipped. The last line printed is a JSON object with medians.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from experiments import markdown
from experiments.budgets import ProcessorTime
from experiments.command_line import parsed
from experiments.records import add, missing, rows_of, surroundings
from instahide.attacks.base import (
    Attack,
    LocalTraining,
    UpdateObservation,
    no_progress,
)
from instahide.attacks.gradients.dlg import DeepLeakage
from instahide.attacks.gradients.inverting import InvertingGradients, InvertingStatistics
from instahide.attacks.gradients.lenet import lenet
from instahide.audit.client_update import observe_update
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

SCHEMES = {
    "plain": Scheme.plain(),
    "mixup-inside-4": Scheme.mixup(4),
    "inside-4": Scheme.inside(4),
    "cross-4": Scheme.cross(4),
}
ATTACKS: dict[str, Attack[UpdateObservation]] = {
    attack.name: attack for attack in (DeepLeakage(), InvertingGradients(), InvertingStatistics())
}
#: From this PSNR on an image counts as recovered.
RECOVERED = 25.0
#: Seconds of processor time that an attack may take.
SECONDS = 60
#: Measures of which medians are shown, and their titles.
SHOWN = {
    "encoding_psnr_mean": "PSNR, dB",
    "of_nothing_psnr_mean": "PSNR of zeros",
    "ssim_mean": "SSIM to the private image",
    "ssim_of_nothing": "SSIM of the mean color",
    "absolute_ssim_mean": "SSIM of absolute values",
}
FIELDS = [
    "attack", "scheme", "setting", "first", "measure", "value", "seconds", "threads", "torch",
    "python", "platform", "commit",
]  # fmt: skip


class Setting(NamedTuple):
    """A participant: a function from a seed to its network, and its local training."""

    network: Callable[[int], nn.Module]
    training: LocalTraining


class Task(NamedTuple):
    """An attack on the update whose first image is ``first``."""

    attack: str
    scheme: str
    setting: str
    first: int


def sigmoid_network(seed: int) -> nn.Module:
    return lenet((3, 32, 32), 10, seed=seed)


def normalized_network(seed: int) -> nn.Module:
    """Return two convolutions with batch norm, with PyTorch's initial weights for ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 256, 10),
        )  # fmt: skip


SETTINGS = {
    "gradient": Setting(sigmoid_network, LocalTraining()),
    "four-steps": Setting(sigmoid_network, LocalTraining(steps=4, learning_rate=0.01)),
    "batch-norm-eval": Setting(normalized_network, LocalTraining(images=4, batch_size=4)),
    "batch-norm-train": Setting(
        normalized_network, LocalTraining(images=4, batch_size=4, train_mode=True)
    ),
}


def tasks(images: int) -> Iterator[Task]:
    for scheme in SCHEMES:
        for first in range(images if scheme == "plain" else images // 3):
            yield Task("dlg", scheme, "gradient", first)
            yield Task("inverting-gradients", scheme, "gradient", first)
    for first in range(images // 5):
        yield Task("dlg", "plain", "four-steps", first)
    for first in range(0, images, 5):
        yield Task("inverting-gradients", "plain", "batch-norm-eval", first)
        for name in ("inverting-gradients", "inverting-statistics"):
            yield Task(name, "plain", "batch-norm-train", first)


def run(task: Task, private: ImageTable, public: ImageTable) -> dict[str, float]:
    """Run one attack and return all its figures."""
    setting, attack = SETTINGS[task.setting], ATTACKS[task.attack]
    alone = setting.training.images == 1
    observation, truth = observe_update(
        private, public, SCHEMES[task.scheme], setting.network(task.first),
        np.arange(task.first, task.first + setting.training.images), setting.training,
        labels="none" if alone else "soft", buffers=setting.training.train_mode,
    )  # fmt: skip
    started = time.perf_counter()
    found = attack.run(observation, ProcessorTime(SECONDS), no_progress)
    seconds = time.perf_counter() - started
    figures = score(found, observation, truth).summary
    means = {name: value for name, value in figures.items() if not name.endswith("_best")}
    return {**found.statistics, **means, "seconds": seconds}


def summary(rows: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    """Return the medians and the number of inverted updates by attack, scheme and setting."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        measures = found.setdefault(f"{row['attack']} {row['scheme']} {row['setting']}", {})
        measures.setdefault(row["measure"], []).append(float(row["value"]))
    return {
        name: {measure: round(median(measures[measure]), 3) for measure in SHOWN}
        | {
            "recovered": sum(value >= RECOVERED for value in measures["encoding_psnr_mean"]),
            "of": len(measures["encoding_psnr_mean"]),
        }
        for name, measures in found.items()
    }


def table(rows: list[dict[str, str]]) -> str:
    """Return the table of docs/attacks/gradient-inversion.md."""
    heads = ["attack", "scheme", "update", "PSNR of at least 25 dB", *SHOWN.values()]
    shown = []
    for name, found in summary(rows).items():
        attack, scheme, setting = name.split()
        figures = (f"{found[each]:.{1 if 'psnr' in each else 2}f}" for each in SHOWN)
        recovered = f"{found['recovered']:.0f} of {found['of']:.0f}"
        shown.append([f"`{attack}`", scheme, setting, recovered, *figures])
    return "\n".join(markdown.table(heads, shown, texts=(0, 1, 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10, help="photographs that are attacked")
    parser.add_argument("--schemes", help="only these, such as plain,inside-4")
    parser.add_argument("--attacks", help="only these, such as dlg")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/gradients.csv"))
    options = parsed(parser, threads=1)
    left = [
        task
        for task in missing(options.out, Task._fields, tasks(options.images))
        if (options.schemes is None or task.scheme in options.schemes.split(","))
        and (options.attacks is None or task.attack in options.attacks.split(","))
    ]
    if left:
        measure(left, *photographs(), options.out)
    print(json.dumps(summary(rows_of(options.out))))


def photographs() -> tuple[ImageTable, ImageTable]:
    """Return private photographs, on which nothing was tuned, and a public pool."""
    from experiments.photographs import patches, victim

    return victim(1), ImageTable.from_arrays(patches("public", 200, 0))


def measure(missing: list[Task], private: ImageTable, public: ImageTable, out: Path) -> None:
    for task in missing:
        figures = run(task, private, public)
        seconds = round(figures["seconds"], 3)
        rows = [
            {
                **task._asdict(), "measure": name, "value": f"{value:.6g}", "seconds": seconds,
                **surroundings(),
            }
            for name, value in figures.items()
        ]  # fmt: skip
        add(out, FIELDS, *rows)
        print(*task, f"PSNR {figures['encoding_psnr_mean']:.1f} dB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Measure what the paper's attacks recover from photographs: plain, with Mixup and with InstaHide.

    python -m experiments.attacks

The private patches, the public pool and the attacker's own images come from different photographs
(see `experiments.photographs`). The weak generators are the authors' routine in `benchmarks.peers`
with a seed. Each finished attack adds its figures to the CSV file; attacks that the file already
contains are skipped. The last line printed is a JSON object with the main figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks import peers
from experiments.command_line import parsed
from experiments.records import add, keys_in, rows_of, surroundings
from instahide.attacks.base import (
    Attack,
    EncodingObservation,
    Observation,
    ThreatModel,
    no_progress,
)
from instahide.attacks.budget import Budget
from instahide.attacks.registry import attack_named
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.audit.scoring.scores import score
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

SCHEMES = {
    "plain": Scheme.plain(),
    "mixup-inside-4": Scheme.mixup(4),
    "mixup-cross-4": Scheme.cross(4, mask=False),
    "inside-4": Scheme.inside(4),
    "cross-4": Scheme.cross(4),
}
#: Known mixes that hold more signs than the Mersenne Twister has bits.
KNOWN = 8
#: A seed that is found after a while, and the seconds that each search may take.
SECRET_SEED, SECONDS = 3_000_017, 60
FIELDS = [
    "attack", "scheme", "encodings_per_image", "seed", "measure", "value", "seconds", "threads",
    "torch", "numpy", "python", "platform", "commit",
]  # fmt: skip


class Images(NamedTuple):
    private: ImageTable
    public: ImageTable


class Task(NamedTuple):
    """An attack on a scheme; "weak" is the authors' routine with a seeded generator."""

    attack: str
    scheme: str
    encodings_per_image: int


def tasks() -> Iterator[Task]:
    for scheme in SCHEMES:
        for count in (10, 100):
            yield Task("averaging", scheme, count)
            yield Task("averaging-absolute", scheme, count)
        yield Task("labels", scheme, 10)
        yield Task("statistics", scheme, 100)
    for scheme in ("mixup-cross-4", "cross-4"):
        yield Task("public-search", scheme, 2)
        yield Task("public-search-absolute", scheme, 2)
    for scheme in ("weak", "cross-4"):
        yield Task("mersenne-twister", scheme, 2)
        yield Task("seed-search", scheme, 2)


def threat_of(task: Task) -> ThreatModel:
    grouped = task.attack.startswith(("averaging", "statistics"))
    known = KNOWN if task.attack == "mersenne-twister" else 0
    return ThreatModel(
        grouped=grouped, known_mixes=known, encodings_per_image=task.encodings_per_image
    )


def run(task: Task, images: Images) -> dict[str, float]:
    """Run one attack and return all its figures."""
    attack = attack_named(task.attack)
    observation, truth = observed(task, images, attack)
    started = time.perf_counter()
    found = attack.run(observation, Budget(SECONDS), no_progress)
    seconds = time.perf_counter() - started
    figures = dict(found.statistics)
    if truth is not None:
        figures |= score(found, observation, truth).summary
    return {**figures, "seconds": seconds}


def observed(
    task: Task, images: Images, attack: Attack[Observation]
) -> tuple[EncodingObservation, GroundTruth | None]:
    """Return an observation to which ``attack`` applies."""
    threat = threat_of(task)
    while True:
        if task.scheme == "weak":
            observation, truth = authors_routine(SECRET_SEED, *images, threat)[0], None
        else:
            observation, truth = observe(*images, SCHEMES[task.scheme], threat)
        # By chance the first mix may be of one class, which tells a seed search nothing.
        if task.attack != "seed-search" or attack.applies(observation) is None:
            return observation, truth


def authors_routine(
    seed: int, private: ImageTable, public: ImageTable, threat: ThreatModel
) -> tuple[EncodingObservation, Tensor]:
    """Return encodings by the authors' routine with seeded generators, and the unmasked mixes."""
    images = torch.from_numpy(private.normalized()).repeat(threat.encodings_per_image, 1, 1, 1)
    classes = torch.from_numpy(private.labels).repeat(threat.encodings_per_image)
    onehot = torch.eye(len(private.classes))[classes]
    pool = torch.from_numpy(public.normalized_like(private).normalized())

    def made() -> tuple[Tensor, Tensor]:
        np.random.seed(seed)
        torch.manual_seed(seed)
        return peers.cross(images, onehot, pool, 4, 0.65, 0.3)

    encodings, labels = made()
    with patch.object(peers, "masked", lambda mixed: mixed):
        mixes, _ = made()
    observation = EncodingObservation(
        SCHEMES["cross-4"], private.mean, private.std, threat, encodings, labels,
        known_mixes=mixes[: threat.known_mixes] if threat.known_mixes else None,
    )  # fmt: skip
    return observation, mixes


def summary(rows: list[dict[str, str]]) -> dict[str, float]:
    """Return the main figures, as means over seeds."""
    wanted = {
        ("public-search", "mixup-cross-4", "2", "public_found"),
        ("public-search", "cross-4", "2", "public_found"),
        ("public-search-absolute", "cross-4", "2", "public_found"),
        ("averaging", "mixup-inside-4", "100", "ssim_mean"),
        ("averaging", "inside-4", "100", "ssim_mean"),
        ("averaging-absolute", "inside-4", "100", "ssim_mean"),
        ("averaging-absolute", "inside-4", "100", "identified_mean"),
        ("mersenne-twister", "weak", "2", "seconds"),
        ("mersenne-twister", "cross-4", "2", "found"),
        ("seed-search", "cross-4", "2", "hours_for_all"),
    }
    values: dict[str, list[float]] = {}
    for row in rows:
        key = (row["attack"], row["scheme"], row["encodings_per_image"], row["measure"])
        if key in wanted:
            values.setdefault(" ".join(key), []).append(float(row["value"]))
    return {name: float(f"{np.mean(found):.4g}") for name, found in sorted(values.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--private", type=int, default=100, help="private patches")
    parser.add_argument("--public", type=int, default=10_000, help="patches of the pool")
    parser.add_argument("--seeds", default="0", help="of the choice of patches: 0,1,2")
    parser.add_argument("--attacks", help="only these, such as labels,averaging")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/attacks.csv"))
    options = parsed(parser, threads=1)
    have = keys_in(options.out, ("attack", "scheme", "encodings_per_image", "seed"))
    for seed in map(int, options.seeds.split(",")):
        missing = [
            task
            for task in tasks()
            if (task.attack, task.scheme, str(task.encodings_per_image), str(seed)) not in have
            and (options.attacks is None or task.attack in options.attacks.split(","))
        ]
        if missing:
            measure(missing, photographs(options.private, options.public, seed), seed, options.out)
    print(json.dumps(summary(rows_of(options.out))))


def photographs(private: int, public: int, seed: int) -> Images:
    """Return patches of two sets of photographs, labeled with ten arbitrary classes."""
    from experiments.photographs import patches

    # Some photographs of the pool are flat: more are asked for than are wanted.
    pool = patches("public", public * 4 // 3, seed)[:public]
    shown = patches("private", private, seed)
    labels = np.arange(len(shown)) % 10
    return Images(ImageTable.from_arrays(shown, labels), ImageTable.from_arrays(pool))


def measure(missing: list[Task], images: Images, seed: int, out: Path) -> None:
    print(f"{len(images.private)} private patches, {len(images.public)} in the pool", flush=True)
    for task in missing:
        figures = run(task, images)
        seconds = round(figures["seconds"], 3)
        rows = [
            {
                **task._asdict(), "seed": seed, "measure": name, "value": f"{value:.6g}",
                "seconds": seconds, "numpy": np.__version__, **surroundings(),
            }
            for name, value in figures.items()
        ]  # fmt: skip
        add(out, FIELDS, *rows)
        print(*task, {name: float(f"{value:.3g}") for name, value in figures.items()}, flush=True)


if __name__ == "__main__":
    main()

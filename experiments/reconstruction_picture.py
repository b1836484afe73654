"""Draw what the reconstruction attack recovers of medical images, for its page.

    python -m experiments.reconstruction_picture --threads 1

The images are those of the first draw of `experiments.victims`, under new keys.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.command_line import parsed
from experiments.reconstruction import PUBLIC, Victim, say
from experiments.records import add, surroundings
from experiments.victims import private_images
from instahide.attacks.base import require
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.attack import RECOVERED, ReconstructionAttack
from instahide.audit.scoring.reconstruction import ReconstructionScore, score_reconstruction

PICTURE = Path("docs/assets/reconstruction.png")
OUT = Path("experiments/results/reconstruction_picture.csv")
KIND, IMAGES, COPIES = "medical", 100, 10
#: Rows of pairs of images, and pairs in a row.
ROWS, COLUMNS = 2, 16


def attacked(folder: Path) -> tuple[ReconstructionScore, dict[str, float]]:
    """Return the images that an attack recovers, and its figures."""
    private = private_images(KIND, 1, IMAGES)
    target = Victim(folder, lambda: private, public=PUBLIC, copies=COPIES)
    observation = target.observation("none")
    found = ReconstructionAttack().run(observation, Budget(), say)
    score = score_reconstruction(found, target.truth, observation.mean, observation.std)
    return score, score.summary(require(found.confidence), RECOVERED)


def draw(score: ReconstructionScore, out: Path = PICTURE) -> None:
    """Draw private images above the recovered ones, in equal steps from the best to the worst."""
    steps = np.linspace(0, len(score.ssim) - 1, ROWS * COLUMNS).round().astype(int)
    order = score.ssim.argsort(descending=True)[torch.from_numpy(steps)]
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    axes = figure.subplots(2 * ROWS, 1)
    for row, shown in enumerate(order.split(COLUMNS)):
        pairs = {"private": score.originals, "recovered": score.shown}
        for axis, (name, images) in zip(axes[2 * row :], pairs.items(), strict=False):
            axis.imshow(strip(images[shown]), interpolation="nearest")
            axis.set_ylabel(name)
            axis.set(xticks=[], yticks=[])
    figure.savefig(out, dpi=150)


def strip(images: Tensor) -> Tensor:
    """(H, n W, C) the images (n, C, H, W) side by side."""
    return torch.cat(list(images), dim=2).permute(1, 2, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parsed(parser)
    with tempfile.TemporaryDirectory() as folder:
        score, figures = attacked(Path(folder) / "victim")
    row = {"kind": KIND, "images": IMAGES, "copies": COPIES}
    row |= {name: round(value, 5) for name, value in figures.items()} | surroundings()
    OUT.unlink(missing_ok=True)
    add(OUT, list(row), row)
    draw(score)


if __name__ == "__main__":
    main()

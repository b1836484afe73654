"""Draw the pictures of docs/how-it-works.md, from crops of scikit-image's photographs.

    python -m experiments.pictures

The keys are used for the pictures only and differ in each run, and so do the pictures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from experiments.photographs import scikit_image, scikit_image_classes
from instahide.attacks.averaging import Averaging, AveragingAbsolute
from instahide.attacks.base import (
    Attack,
    EncodingObservation,
    RecoveredImages,
    ThreatModel,
    no_progress,
)
from instahide.attacks.budget import Budget
from instahide.audit.ground_truth import GroundTruth, observe
from instahide.cli.show import ShowOptions, draw_picture
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

ASSETS = Path(__file__).resolve().parents[1] / "docs" / "assets"
STEPS, AVERAGES = ASSETS / "how-steps.png", ASSETS / "how-averages.png"
COPIES = (2, 8, 32, 128)
#: What a row of the second picture shows: encodings of which scheme, and how they are averaged.
ROWS: tuple[tuple[str, Scheme, Attack[EncodingObservation]], ...] = (
    ("Mixup,\nmean", Scheme.mixup(4), Averaging()),
    ("InstaHide,\nmean", Scheme.inside(4), Averaging()),
    ("InstaHide,\nmean square", Scheme.inside(4), AveragingAbsolute()),
)


def steps(classes: Mapping[str, NDArray[np.uint8]], out: Path = STEPS) -> None:
    """Draw the picture of `instahide show` for crops (n, 3, H, W) by the name of their class."""
    with tempfile.TemporaryDirectory() as folder:
        for name, crops in classes.items():
            kept = Path(folder, name)
            kept.mkdir()
            for number, crop in enumerate(crops):
                Image.fromarray(crop.transpose(1, 2, 0)).save(kept / f"{number:03}.png")
        draw_picture(ShowOptions(source=folder, out=out))


def averages(crops: NDArray[np.uint8], out: Path = AVERAGES, row: int = 33) -> None:
    """Draw what averaging recovers of the crop ``row``, by the number of its encodings."""
    images = ImageTable.from_arrays(crops, np.arange(len(crops)) % 2)
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots(len(ROWS), 1 + len(COPIES), squeeze=False)
    for copies, axis in zip(COPIES, axes[0, 1:], strict=True):
        axis.set_title(f"{copies} encodings", fontsize=9)
    for (name, scheme, attack), line in zip(ROWS, axes, strict=True):
        absolute = isinstance(attack, AveragingAbsolute)
        for copies, axis in zip(COPIES, line[1:], strict=True):
            found, truth = recovered(attack, images, scheme, copies, row)
            show(axis, found)
        original = truth.images[row]
        show(line[0], original.abs() if absolute else original)
        line[0].set_title("|original|" if absolute else "original", fontsize=9)
        line[0].text(
            -0.1, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9
        )
    figure.savefig(out, dpi=160, facecolor="white")


def recovered(
    attack: Attack[EncodingObservation], images: ImageTable, scheme: Scheme, copies: int, row: int
) -> tuple[Tensor, GroundTruth]:
    """Return (3, H, W) what ``attack`` recovers of the image ``row``, and the truth."""
    threat = ThreatModel(grouped=True, encodings_per_image=copies)
    observation, truth = observe(images, None, scheme, threat)
    found = attack.run(observation, Budget(), no_progress)
    assert isinstance(found, RecoveredImages)
    return found.images[truth.group_targets[found.target_ids] == row][0], truth


def show(axis: Axes, image: Tensor) -> None:
    """Draw (3, H, W) of any range; the lowest and highest 1% of the values are clipped."""
    low, high = np.quantile(image.numpy(), (0.01, 0.99))
    shown = ((image.numpy() - low) / (high - low)).clip(0, 1)
    axis.imshow(shown.transpose(1, 2, 0), interpolation="nearest")
    axis.set_axis_off()


if __name__ == "__main__":
    steps(scikit_image_classes(12))
    averages(scikit_image(100))

"""Folders of image files with a table of labels, as participants have them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments import multilabel
from instahide.data import ImageTable, open_split
from instahide.data.labels import Labels


def write_folder(
    folder: Path,
    pixels: np.ndarray[Any, Any],
    labels: Labels,
    columns: Sequence[str],
    patients: Sequence[str] = (),
) -> dict[str, str]:
    """Write grey ``pixels`` (N, H, W) as PNG files and a table; returns settings that name them."""
    folder.mkdir(parents=True)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    table = folder.with_suffix(".csv")
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", *columns, *(["patient"] if len(patients) else [])])
        for number, row in enumerate(labels):
            values = ["" if np.isnan(value) else value for value in row]
            patient = [patients[number]] if len(patients) else []
            rows.writerow([f"{number}.png", *values, *patient])
    settings = {"data": str(folder), "labels": str(table), "label-columns": ",".join(columns)}
    return settings | ({"group-column": "patient"} if len(patients) else {})


def digit_pairs(parts: int, rounds: int = 2) -> tuple[list[ImageTable], ImageTable]:
    """Pairs of digits, 8 x 16 pixels, with ten findings: of each participant, and for testing.

    No two participants have a digit in common.
    """
    train, test = open_split("digits")
    generator = np.random.default_rng(0)
    shares = np.array_split(np.arange(len(train)), parts)
    pairs = [multilabel.paired(train.subset(rows), generator, rounds) for rows in shares]
    return pairs, multilabel.paired(test, generator, 1)

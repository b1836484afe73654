"""What stands below the images of the picture of an encryption."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from instahide.cli.show import label_text
from instahide.data import ImageTable
from instahide.data.labels import Task


@pytest.mark.parametrize(
    ("task", "labels", "classes", "texts"),
    [
        ("single-label", [1, 0], ["cat", "a very long name"], ["a very long…", "cat"]),
        ("multi-label", [[0, 0], [1, 1]], ["mass", "node"], ["no finding", "mass, node"]),
        ("multi-label", [[nan, nan], [nan, 1]], ["mass", "node"], ["unknown", "node"]),
        ("regression", [[1.23456], [2]], ["age"], ["1.23", "2"]),
    ],
)
def test_labels_are_named_briefly(
    task: Task, labels: list[object], classes: list[str], texts: list[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4), np.uint8)
    table = ImageTable.from_arrays(pixels, np.array(labels), classes, task=task)
    assert [label_text(label, table) for label in table.labels] == texts

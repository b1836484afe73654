"""Folders of encodings with several findings or measured values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from instahide import ImageTable, Scheme
from instahide.data.labels import Task
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.manifest import Manifest
from instahide.encodings.publish import Publication, publish, threads
from instahide.encodings.verification.value_ranges import value_problems
from instahide.errors import DataError
from instahide.training.data.compatibility import require_poolable
from instahide.training.data.pooled_loader import PooledLoader

COUNT = 24


def images(task: Task, names: tuple[str, ...], seed: int = 0) -> ImageTable:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (COUNT, 6, 6), np.uint8)
    targets = generator.integers(0, 2, (COUNT, len(names))).astype(np.float32)
    if task == "multi-label":
        targets[::5, 0] = np.nan
    return ImageTable.from_arrays(pixels, targets, names, task=task)


def published(table: ImageTable, path: Path, ledger: Ledger) -> EncodedFolder:
    publication = Publication(table, None, Scheme.inside(2), 2, "float32")
    return publish(publication, path, ledger, engine=threads)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_a_folder_keeps_task_and_targets_and_is_found_right(
    task: Task, tmp_path: Path, ledger: Ledger
) -> None:
    folder = published(images(task, ("one",)), tmp_path / "encoded", ledger)
    assert folder.manifest.task == task
    assert folder.verify() == []
    labels = torch.cat([folder.shard(n).labels for n in range(len(folder.manifest.shards))])
    assert labels.shape == (2 * COUNT, 1)
    assert bool(labels.isnan().any()) == (task == "multi-label")


def test_findings_that_a_participant_lacks_are_unknown(tmp_path: Path, ledger: Ledger) -> None:
    anna = published(images("multi-label", ("mass", "fluid")), tmp_path / "anna", ledger)
    ben = published(images("multi-label", ("fluid", "nodule"), 1), tmp_path / "ben", ledger)
    loader = PooledLoader([anna, ben], 7)
    assert loader.classes == ("mass", "fluid", "nodule")
    labels = torch.cat([labels for _, labels in loader])
    assert len(labels) == 4 * COUNT
    # Anna knows no nodules, Ben no masses; of a finding that both know, some are unknown to Ben.
    assert int(labels[:, 2].isfinite().sum()) == 2 * COUNT
    assert int(labels[:, 0].isfinite().sum()) < 2 * COUNT


def test_what_differs_in_kind_cannot_be_pooled(tmp_path: Path, ledger: Ledger) -> None:
    folders = {
        name: published(images(task, names, seed), tmp_path / name, ledger)
        for seed, (name, task, names) in enumerate(
            [
                ("findings", "multi-label", ("age", "dose")),
                ("values", "regression", ("age", "dose")),
                ("fewer", "regression", ("age",)),
            ]
        )
    }
    with pytest.raises(DataError, match="labels multi-label in the one, regression in the other"):
        require_poolable([folders["findings"], folders["values"]])
    with pytest.raises(DataError, match="values age, dose in the one, age in the other"):
        require_poolable([folders["values"], folders["fewer"]])


@pytest.mark.parametrize(
    ("task", "labels", "right"),
    [
        ("multi-label", [[0.0, 1.0], [np.nan, 0.5]], True),
        ("multi-label", [[0.0, 1.01]], False),
        ("multi-label", [[-0.01, 1.0]], False),
        ("multi-label", [[np.inf, 1.0]], False),
        ("regression", [[-1e6, 3.0]], True),
        ("regression", [[np.nan, 3.0]], False),
        ("regression", [[np.inf, 3.0]], False),
        ("single-label", [[0.4, 0.6]], True),
        ("single-label", [[np.nan, 1.0]], False),
    ],
)
def test_labels_are_possible_for_the_task(
    task: Task, labels: list[list[float]], right: bool
) -> None:
    names = ("a", "b")
    table = (
        images(task, names)
        if task != "single-label"
        else ImageTable.from_arrays(images("regression", names).pixels, np.arange(COUNT) % 2, names)
    )
    manifest = Publication(table, None, Scheme.inside(2), 1, "float32").manifest()
    found = value_problems(torch.zeros(len(labels), 1, 6, 6), torch.tensor(labels), manifest)
    assert (found is None) == right


def test_a_manifest_of_targets_that_are_too_small_is_refused() -> None:
    table = images("regression", ("age",))
    text = Publication(table, None, Scheme.inside(2), 1, "float32").manifest()
    values = json.loads(text.to_json())
    values["scheme"] |= {"private_k": 1}
    with pytest.raises(ValidationError, match="soft labels of a regression task are too small"):
        Manifest.model_validate(
            {name: value for name, value in values.items() if name != "checksum"}, strict=False
        )


def test_images_of_one_class_are_refused_and_of_one_finding_are_not(tmp_path: Path) -> None:
    pixels = images("regression", ("a",)).pixels
    one = ImageTable.from_arrays(pixels, np.zeros(COUNT, np.int64), ["cat"])
    with pytest.raises(DataError, match="one class alone"):
        Publication(one, None, Scheme.inside(2), 1)
    Publication(images("multi-label", ("mass",)), None, Scheme.inside(2), 1)

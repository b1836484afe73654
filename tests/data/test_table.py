"""Tables on disk, whoever wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.errors import InstaHideError

COUNT = 6


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    """Six images of two classes, in the folder ``table``."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 8, 8), np.uint8)
    table = ImageTable.from_arrays(pixels, np.arange(COUNT) % 2)
    table.save(tmp_path / "table")
    return table


def test_what_is_saved_is_loaded(table: ImageTable, tmp_path: Path) -> None:
    back = ImageTable.load(tmp_path / "table")
    np.testing.assert_array_equal(back.pixels, table.pixels)
    np.testing.assert_array_equal(back.labels, table.labels)
    assert (back.classes, back.normalization) == (table.classes, table.normalization)


@pytest.mark.parametrize(
    "change",
    [
        b"", b"[", b"[1]", b"null", b"{}", b"\xff", b"[" * 100_000,
        {"classes": None}, {"classes": 2}, {"classes": [1, 2]}, {"classes": ["cat"]},
        {"mean": [0.5]}, {"mean": ["a", "b", "c"]}, {"mean": [10**400] * 3},
        {"mean": [127.5] * 3}, {"mean": [-0.1, 0.5, 0.5]},
        {"value_range": None}, {"value_range": [0]}, {"value_range": [255, 0]},
        {"value_range": [0, 256]}, {"value_range": [0, "1"]},
        {"std": [0, 1, 1]}, {"std": [10**400] * 3}, {"std": [1001, 1, 1]}, {"std": None},
    ],
    ids=lambda change: repr(change)[:30],
)  # fmt: skip
@pytest.mark.usefixtures("table")
def test_facts_that_cannot_be_are_refused(change: bytes | dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "table" / "table.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text()) | change).encode()
    path.write_bytes(change)
    with pytest.raises(InstaHideError, match="not a readable image table"):
        ImageTable.load(tmp_path / "table")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pixels", np.zeros((COUNT, 3, 8, 8), np.float64)),
        ("pixels", np.zeros((COUNT, 3, 8), np.uint8)),
        ("pixels", np.zeros((COUNT, 3, 0, 8), np.uint8)),
        ("pixels", np.zeros((COUNT + 1, 3, 8, 8), np.uint8)),
        ("labels", np.full(COUNT, 2)),
        ("labels", np.full(COUNT, -1)),
        ("labels", np.full(COUNT, 0.5)),
        ("labels", np.full(COUNT, "cat")),
        ("labels", np.zeros((COUNT, 2), np.int64)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{value.shape}",
)
@pytest.mark.usefixtures("table")
def test_arrays_that_cannot_be_are_refused(name: str, values: NDArray[Any], tmp_path: Path) -> None:
    np.save(tmp_path / "table" / f"{name}.npy", values)
    with pytest.raises(InstaHideError, match="not a readable image table"):
        ImageTable.load(tmp_path / "table")

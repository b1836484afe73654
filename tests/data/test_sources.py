"""A source is read once, whatever is taken from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instahide.data import open_images, open_split, open_test, sources
from instahide.data.sources import open_named_test


@pytest.mark.parametrize("opened", [open_images, open_split, open_test, open_named_test])
@pytest.mark.parametrize("two_parts", [False, True])
def test_a_file_is_read_once(
    opened: Callable[..., Any], two_parts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {
        "images": np.arange(80, dtype=np.uint8).reshape(20, 2, 2),
        "labels": np.arange(20) % 2,
    }
    if two_parts:
        arrays = {
            f"{part}_{name}": value for name, value in arrays.items() for part in ("train", "test")
        }
    np.savez(tmp_path / "images.npz", **arrays)
    read, calls = sources.read_npz, []
    monkeypatch.setattr(sources, "read_npz", lambda path: calls.append(path) or read(path))
    opened(tmp_path / "images.npz")
    assert len(calls) == 1

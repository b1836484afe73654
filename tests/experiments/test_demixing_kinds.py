"""Demixing of five kinds of images, and reconstruction of augmented ones: their rows and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from experiments import demixing_kinds, reconstruction_augmented
from experiments.records import rows_of
from instahide.data import ImageTable
from tests.attacks.conftest import natural

PAGE = Path(__file__).parents[2] / "docs" / "attacks" / "demixing.md"


def private(kind: str, draw: int, count: int = 12) -> ImageTable:
    return ImageTable.from_arrays(natural(count, draw, 32), np.arange(count) % 3)


def public() -> ImageTable:
    return ImageTable.from_arrays(natural(60, 9, 32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "options", "runs", "more"),
    [
        (
            demixing_kinds,
            ["--kinds", "photographs", "--schemes", "cross-4", "--draws", "1"],
            {"photographs cross-4"},
            {"ssim_attack", "recovered_mix", "ssim_blank"},
        ),
        (
            reconstruction_augmented,
            ["--images", "6", "--copies", "6", "--draws", "1", "--attackers", "aware"],
            {f"6 photographs x 6, {name}, aware" for name in ("flip", "crop", "crop and flip")},
            {"ssim", "claimed_rightly", "ceiling_recovered"},
        ),
    ],
    ids=["demixing", "augmented"],
)
def test_every_run_is_measured_once(
    module: ModuleType,
    options: list[str],
    runs: set[str],
    more: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "rows.csv"
    replaced: dict[str, Callable[..., ImageTable]] = {
        "private_images": private,
        "public_images": public,
    }
    for name, function in replaced.items():
        monkeypatch.setattr(module, name, function)
    monkeypatch.setattr(sys, "argv", ["measure", *options, "--out", str(out)])
    module.main()
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])) == runs
    before = out.read_bytes()
    module.main()
    assert out.read_bytes() == before
    for row in rows_of(out):
        assert more <= set(row)
        assert all(0 <= float(row[name]) <= 12 for name in more)


def test_the_page_shows_what_was_measured() -> None:
    rows = rows_of(demixing_kinds.OUT)
    assert rows
    assert demixing_kinds.table(rows) in PAGE.read_text(encoding="utf-8")

"""The page on encoders shows what was measured, and an experiment measures it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments import encoder_networks, encoders, encoders_table
from experiments.records import END, START, rows_of
from instahide import open_split
from instahide.encryption.encoders.registry import encoder_named


def test_the_page_shows_what_was_measured() -> None:
    page = encoders_table.PAGE.read_text(encoding="utf-8")
    rows = rows_of(encoders_table.MEASURED)
    assert rows
    assert encoders_table.rewritten(page, rows) == page


@pytest.mark.parametrize("data", encoders.BLOCKS)
def test_every_encoder_of_the_table_fits_the_images(data: str) -> None:
    side = {"digits": 8, "fashion-mnist": 28, "photographs": 32}[data]
    for rival in encoders.rivals(data).values():
        shape = encoder_named(rival.encoder, rival.settings).output_shape((3, side, side))
        assert len(shape) == 3
    assert set(encoders.rivals(data)) == set(encoders_table.TITLES)


def test_the_order_of_patches_does_not_matter_to_their_network() -> None:
    network = encoder_networks.patches(6, 3).eval()
    vectors = torch.randn(2, 6, 4, 4)
    order = torch.randperm(16)
    moved = vectors.flatten(2)[:, :, order].reshape(2, 6, 4, 4)
    torch.testing.assert_close(network(vectors), network(moved), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_is_measured_is_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(encoders.EPOCHS, "digits", 1)
    found = encoders.measure("digits", "block-scrambling", 0, tmp_path, (3, 3))
    assert set(found) == set(encoders.FIELDS)
    assert found["images"] == len(open_split("digits").train)
    # Copies under one key are equal.
    assert found["linkage_auc"] == 1.0
    row = {name: str(value) for name, value in found.items()}
    page = encoders_table.rewritten(f"{START}{END}", [row])
    assert f"| block scrambling | {found['accuracy']:.1f} |" in page
    assert "none" in page

"""The task in color: no test patch has a pixel in common with a training patch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments import accuracy, color_patches, evidence_tables, tables
from experiments.color_patches import Cell, cells_of, cut, divided
from instahide import open_split
from instahide.data.public.crops import PHOTOS, photo_files


def photo(seed: int, height: int = 512, width: int = 768) -> NDArray[np.uint8]:
    """Return noise, in blocks that keep their contrast in a smaller image."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def covered(squares: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which pixels of a photograph any of the squares has."""
    pixels = np.zeros(shape[:2], bool)
    for top, left, side in squares:
        pixels[top : top + side, left : left + side] = True
    return pixels


def test_training_and_test_patches_have_no_pixel_in_common() -> None:
    picture = photo(0)
    parts = divided(cells_of(picture, np.random.default_rng(0)))
    train, test = (
        cut(picture, cells, 400, np.random.default_rng(number))
        for number, cells in enumerate(parts)
    )
    assert len(train.patches) == len(test.patches) == 400
    pixels = covered(train.squares, picture.shape), covered(test.squares, picture.shape)
    assert all(part.any() for part in pixels)
    assert not (pixels[0] & pixels[1]).any()
    assert len(np.unique(train.squares, axis=0)) == 400


def test_a_patch_is_what_its_square_shows() -> None:
    # A square of 32 pixels is not resized.
    side = color_patches.SIDE
    picture = photo(1, side * color_patches.PATCH_SHARE)
    found = cut(picture, [Cell(64, 128, 2 * side)], 20, np.random.default_rng(0))
    for patch, square in zip(found.patches, found.squares.tolist(), strict=True):
        top, left, across = square
        assert across == side
        assert 64 <= top <= 64 + side
        assert 128 <= left <= 128 + side
        assert np.array_equal(patch, picture[top : top + side, left : left + side])


def test_a_cell_with_too_few_patches_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(color_patches, "MOST_CROPS", 20)
    side = 512 // color_patches.PATCH_SHARE
    with pytest.raises(ValueError, match="too few"):
        cut(photo(1), [Cell(0, 0, side)], 2, np.random.default_rng(0))


def test_cells_and_photographs_without_detail_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half_flat, flat = photo(2), np.full_like(photo(0), 90)
    half_flat[:, 384:] = 90
    cells = cells_of(half_flat, np.random.default_rng(0))
    assert cells
    assert all(cell.left < 384 for cell in cells)
    pictures = {"detailed": photo(0), "flat": flat, "half flat": half_flat}
    monkeypatch.setattr(color_patches, "PHOTOGRAPHS", tuple(pictures))
    monkeypatch.setattr(color_patches, "_read", pictures.__getitem__)
    found = color_patches.arrays(30, 10)
    assert found["x_train"].shape == (60, 32, 32, 3)
    assert found["y_train"].tolist() == [0] * 30 + [1] * 30
    assert found["x_test"].shape == (20, 32, 32, 3)
    again = color_patches.arrays(30, 10)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_no_photograph_of_the_task_is_in_its_public_pool() -> None:
    public = {path.stem for path in photo_files(PHOTOS, 3)}
    assert public.isdisjoint(Path(name).name for name in color_patches.PHOTOGRAPHS)


@pytest.mark.slow
@pytest.mark.skipif(
    not color_patches.BACKGROUNDS.exists() or not color_patches.WALLPAPERS.exists(),
    reason="the Debian packages of the photographs are not installed",
)
def test_the_real_task_is_as_large_as_the_page_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INSTAHIDE_CACHE", str(tmp_path / "cache"))
    settings = accuracy.settings_of("color-patches", "cross-4", 0, 1)
    train, test = open_split(str(settings.data))
    assert train.shape == (3, 32, 32)
    title, note = tables.BESIDE[color_patches.NAME], evidence_tables.COLOR_NOTE[0]
    assert f"{len(train.classes)} photographs, {len(train):,} images" in title
    assert f"{len(test):,} test patches" in note
    assert len(train.classes) >= 20
    assert len(train) + len(test) >= 40_000
    assert np.ptp(np.bincount(train.labels)) == np.ptp(np.bincount(test.labels)) == 0
    patches = {row.tobytes() for table in (train, test) for row in table.pixels}
    assert len(patches) == len(train) + len(test)

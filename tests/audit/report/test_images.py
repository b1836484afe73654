"""Pictures of a report: one of each private image, small enough for a page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from instahide.audit.report import images
from instahide.audit.scoring.matching import Matches


def matches(count: int, side: int) -> Matches:
    """``count`` images, each recovered twice: exactly, and as noise."""
    originals = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    recovered = torch.cat([originals, torch.rand_like(originals)])
    ssim = torch.cat([torch.linspace(1, 0.9, count), torch.zeros(count)])
    recognized = torch.arange(2 * count) < count - 1
    rows = torch.arange(count).repeat(2)
    return Matches(
        rows, recovered, originals.repeat(2, 1, 1, 1), ssim, recognized, torch.arange(count)
    )


def test_each_image_has_one_picture_the_best_first(tmp_path: Path) -> None:
    saved = images.save_images(tmp_path, "attack", matches(5, 16))
    assert [round(picture.ssim, 3) for picture in saved] == [1, 0.975, 0.95, 0.925, 0.9]
    assert [picture.recognizable for picture in saved] == [True] * 4 + [False]
    names = {name for picture in saved for name in (picture.original, picture.recovered)}
    assert names == {path.name for path in tmp_path.iterdir()}
    with Image.open(tmp_path / saved[0].original) as shown:
        assert shown.size == (16, 16)


def test_many_or_large_images_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_PICTURES", 3)
    monkeypatch.setattr(images, "MOST_PIXELS", 3 * 12 * 12)
    saved = images.save_images(tmp_path, "attack", matches(9, 16))
    assert [round(picture.ssim, 3) for picture in saved] == [1, 0.95, 0.9]
    with Image.open(tmp_path / saved[0].recovered) as shown:
        assert shown.size == (12, 12)

"""torchvision's transforms and data sets in a wrapped loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from instahide import Scheme, encode_loader, open_pool
from tests.integrations.matrix import SCHEME, check

torchvision = pytest.importorskip("torchvision")
MEAN, STD = (0.45, 0.5, 0.55), (0.25, 0.3, 0.2)
CLASSES = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(2).integers(0, 256, (CLASSES, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        place = tmp_path / f"class-{number:02}"
        place.mkdir()
        Image.fromarray(image).save(place / "image.png")
    return tmp_path


def first(folder: Path) -> Any:
    from torchvision import transforms

    steps = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return torchvision.datasets.ImageFolder(str(folder), transforms.Compose(steps))


def second(folder: Path) -> Any:
    from torchvision.transforms import v2

    steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return torchvision.datasets.ImageFolder(str(folder), v2.Compose(steps))


@pytest.mark.parametrize("make", [first, second])
def test_image_folder(make: Any, folder: Path) -> None:
    dataset = make(folder)
    pixels = torch.stack([torch.as_tensor(dataset[index][0]) for index in range(CLASSES)])
    order = "`ImageFolder` with `transforms`" if make is first else "... with `transforms.v2`"
    check(
        "torchvision", order, lambda: encode_loader(DataLoader(dataset, 6), SCHEME), pixels=pixels
    )


@pytest.mark.parametrize("make", [first, second])
def test_what_the_data_set_says_is_found(make: Any, folder: Path) -> None:
    dataset = Subset(make(folder), range(0, CLASSES, 2))
    public = open_pool("photos", (3, 8, 8))
    loader = encode_loader(DataLoader(dataset, 6), Scheme.cross(k=4), public=public)
    assert loader.dataset.classes == tuple(f"class-{number:02}" for number in range(CLASSES))
    np.testing.assert_allclose(loader._encoder._moments.mean, MEAN)
    images, labels = next(iter(loader))
    assert images.shape == (6, 3, 8, 8)
    assert labels.shape == (6, CLASSES)

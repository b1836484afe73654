"""A cache of their own for the tests of this room, and real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from instahide.data.public.crops import photo_files
from instahide.data.readers.image_file import decode


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("INSTAHIDE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A colour photograph of 300 x 451 pixels (scikit-image's Chelsea)."""
    return decode(next(path for path in photo_files("photos", 3) if "chelsea" in path.name))


@pytest.fixture
def class_folders(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    """Two classes of six 24 x 20 pieces of the photograph, as PNG and JPEG files."""
    root = tmp_path / "animals"
    for number in range(12):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        piece = photo[20 * number : 20 * number + 20, 100:124]
        Image.fromarray(piece).save(folder / f"{number:02}.{('png', 'jpg')[number % 3 == 0]}")
    return root

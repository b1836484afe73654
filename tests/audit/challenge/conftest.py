"""A small challenge, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instahide.audit.challenge.making import Name, make_challenge
from instahide.data import ImageTable
from tests.audit.challenge.examples import COPIES, IMAGES, SIDE


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("challenge")
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (IMAGES + 50, 3, SIDE, SIDE), dtype=np.uint8)
    private = ImageTable.from_arrays(pixels[:IMAGES], np.arange(IMAGES) % 3)
    public = ImageTable.from_arrays(pixels[IMAGES:])
    name = Name("noise-6", 3)
    make_challenge(private, public, root / "given", root / "kept", copies=COPIES, name=name)
    return root / "given", root / "kept"

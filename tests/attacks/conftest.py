"""Made-up photographs, of detail at all scales and like each other; and a budget of steps."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from numpy.typing import NDArray

from instahide.attacks.budget import Budget
from instahide.data import ImageTable

SIDE = 12


class Steps(Budget):
    """So many steps, however long they take."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    @property
    def left(self) -> float:
        self.steps -= 1
        return float(self.steps >= 0)


def natural(count: int, seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """(n, 3, side, side) of the 1/f spectrum that photographs have (Field, 1987)."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    frequency[0, 0] = 1 / side
    noise = np.fft.fft2(generator.standard_normal((count, 3, side, side)))
    smooth = np.fft.ifft2(noise / frequency).real
    smooth /= smooth.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(128 + 45 * smooth, 0, 255).astype(np.uint8)


@pytest.fixture
def same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same keys in every run, for tests of how much an attack finds."""
    monkeypatch.setattr(secrets, "token_bytes", np.random.default_rng(0).bytes)


@pytest.fixture(scope="session")
def private() -> ImageTable:
    return ImageTable.from_arrays(natural(20, 1), np.arange(20) % 5)


@pytest.fixture(scope="session")
def public() -> ImageTable:
    return ImageTable.from_arrays(natural(1500, 2))

"""The images that are encoded: random pixels of CIFAR's size, as speed does not depend on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.encryption.encoder import Encoder
from instahide.training.data.encoded_loader import BLOCK, EncodedLoader

SHAPE = (3, 32, 32)
CLASSES = 10
BATCH = 256


def random_table(count: int, seed: int = 0) -> ImageTable:
    """``count`` random images; those of another ``seed`` are others."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, *SHAPE), np.uint8)
    return ImageTable.from_arrays(
        pixels, np.arange(count) % CLASSES, [str(number) for number in range(CLASSES)]
    )


def blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """``rows`` in the blocks that the loader asks its encoder for."""
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def encode_epoch(encoder: Encoder) -> None:
    """Encode every image once, through the loader that a training loop would use."""
    consume(EncodedLoader(encoder, BATCH))


def consume(made: Iterable[object]) -> None:
    """Drop each block when the next one is there, as a training loop does."""
    deque(made, maxlen=1)

"""A process that counts in a ledger until it is killed; it imports little, to start at once.

``python recorder.py LEDGER LIMIT ROUNDS``: after a line of input it takes random mixes of 40
images, ``ROUNDS`` times, and after each record prints what of every image was in it. A limit of
0 is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.encodings.ledger.ledger import Ledger

IMAGES, MIXES = 40, 25
SHAPE = (1, 4, 4)


def table(count: int, first: int = 0) -> ImageTable:
    """``count`` different images, beginning with number ``first`` of all."""
    return table_of(range(first, first + count))


def table_of(numbers: range | list[int]) -> ImageTable:
    """One image a number; the same number gives the same image."""
    pixels = np.zeros((len(numbers), 16), np.uint8)
    pixels[:, 3:7] = np.asarray(numbers, "<u4")[:, None].view(np.uint8)
    pixels[:, 15] = 255
    labels = np.arange(len(numbers)) % 2
    return ImageTable.from_arrays(pixels.reshape(-1, *SHAPE), labels, ["a", "b"])


def drawn(generator: np.random.Generator, images: int, mixes: int) -> NDArray[np.int64]:
    """Rows of mixes of two of ``images``, none twice in a mix."""
    return np.argsort(generator.random((mixes, images)), axis=1)[:, :2]


def some(mixes: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of mixes, and coefficients that differ everywhere."""
    rows = np.array(mixes, np.int64).reshape(len(mixes), -1)
    return rows, np.linspace(0.1, 0.6, rows.size, dtype=np.float32).reshape(rows.shape)


def main(path: str, limit: str, rounds: str) -> None:
    with Ledger.open(Path(path)) as ledger:
        account = ledger.account(table(IMAGES), limit=int(limit) or None)
        generator = np.random.default_rng()
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(int(rounds)):
            rows = drawn(generator, IMAGES, MIXES)
            account.pending("p", {str(number): rows[:, 0]})
            taken = account.record(rows, np.full(rows.shape, 0.5, np.float32))
            print(*np.bincount(rows[:taken].reshape(-1), minlength=IMAGES), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

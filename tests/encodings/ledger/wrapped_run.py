"""A run of its own that trains on a wrapped loader and counts in a ledger.

``python wrapped_run.py LEDGER EPOCHS`` prints how many encodings it has made.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from instahide import Scheme, encode_loader
from instahide.encodings.ledger.ledger import Ledger


def main(path: str, epochs: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 6, 6), np.uint8)
    values = torch.from_numpy((pixels.astype(np.float32) / 255 - 0.5) / 0.25)
    dataset = TensorDataset(values, torch.arange(12) % 3)
    with Ledger.open(Path(path)) as ledger:
        loader = DataLoader(dataset, batch_size=4, shuffle=True)
        exposure = ledger.account(dataset)
        encoded = encode_loader(loader, Scheme.inside(k=2), classes=3, exposure=exposure)
        print(sum(len(images) for _ in range(int(epochs)) for images, _ in encoded))


if __name__ == "__main__":
    main(*sys.argv[1:])

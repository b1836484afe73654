"""A data set whose labels name its items, and what wrapped loaders of it give."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from instahide.encryption.scheme import Scheme

COUNT = 40
SHAPE = (1, 8, 8)
#: Every image alone under a mask: an encoding's signs times the image's are the mask.
ALONE = Scheme(k=1, private_k=1, c1=1.0, c2=0.0)
INSIDE = Scheme.inside(3)
HALF = list(range(0, COUNT, 2))


class Numbered:
    """Items (image, number); every item is a class of its own."""

    classes = tuple(map(str, range(COUNT)))

    def __init__(self) -> None:
        self.images = torch.from_numpy(
            np.random.default_rng(0).normal(size=(COUNT, *SHAPE)).astype(np.float32)
        )
        self.opened = "nowhere"

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], index


ITEMS = Numbered()


def loader(batch_size: int | None = 8, **more: Any) -> DataLoader[Any]:
    return DataLoader(ITEMS, **{"batch_size": batch_size, **more})  # type: ignore[arg-type]


def order(batches: Any) -> list[list[int]]:
    """The items of every batch, where each is encrypted alone."""
    return [labels.argmax(1).tolist() for _, labels in batches]


def mixed(batches: Any) -> list[set[int]]:
    """The items of every mix, in order."""
    return [set(np.flatnonzero(row).tolist()) for _, labels in batches for row in labels.numpy()]


def masks(batches: Any) -> NDArray[np.bool]:
    """(n, 64) where the signs of the encodings of all batches turned, under `ALONE`."""
    turned = [
        (images * ITEMS.images[labels.argmax(1)]).flatten(1).numpy() < 0
        for images, labels in batches
    ]
    return np.concatenate(turned)


def mixing() -> set[threading.Thread]:
    """The threads that mix at present."""
    return {thread for thread in threading.enumerate() if "instahide-mixing" in thread.name}


def open_in_worker(worker: int) -> None:
    """As the tutorials do it: through the data set that the worker is said to have."""
    info = get_worker_info()
    assert info is not None
    info.dataset.opened = f"worker {worker}"


class Opening(Numbered):
    """Says, in place of the number, where it was opened."""

    def __getitem__(self, index: int) -> tuple[Tensor, int, str]:  # type: ignore[override]
        return self.images[index], index, self.opened

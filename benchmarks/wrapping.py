"""What wrapping a `DataLoader` adds to the wall time of training.

The paper's ResNet-18 is trained in the project's own steps for short epochs in turns: from a
`DataLoader` over a data set that normalizes every item, in two workers, and from the same loader
wrapped by `encode_loader` (cross-dataset, k = 4). The wrapped one has twice as many items fetched.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.loader import train_epoch
from benchmarks.measure import medians, quick, report_steps
from benchmarks.workload import CLASSES, SHAPE, random_table
from instahide import ImageTable, Scheme, encode_loader
from instahide.training import models
from instahide.training.settings import TrainSettings
from instahide.training.training_state import TrainingState

WORKERS = 2


class Items(Dataset[tuple[Tensor, int]]):
    """Images as somebody's transform gives them."""

    def __init__(self, table: ImageTable) -> None:
        self.table = table
        self.classes = table.classes

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.table.normalized(np.asarray([index]))[0]
        return torch.from_numpy(image), int(self.table.labels[index])


def main() -> None:
    tiny = quick(__doc__)
    count, batch, rounds = (32, 16, 1) if tiny else (4096, 128, 3)
    table, public = random_table(count), random_table(64 if tiny else 10_000, seed=1)
    network = models.build("resnet18", SHAPE[0], CLASSES, sign_invariant=False)
    settings = TrainSettings(model="resnet18", batch_size=batch, device="cpu")
    state = TrainingState.start(network, settings)
    state.model.train()
    plain = DataLoader(Items(table), batch, shuffle=True, num_workers=WORKERS)
    wrapped = encode_loader(plain, Scheme.cross(4), public=public, mean=table.mean, std=table.std)
    seconds = medians(
        {
            "plain": partial(train_epoch, state, plain),
            "wrapped": partial(train_epoch, state, wrapped),
        },
        rounds,
    )
    report_steps(
        f"Training ResNet-18 from a DataLoader, batches of {batch}",
        len(plain),
        ("a step from the DataLoader", seconds["plain"]),
        ("a step from the same, wrapped", seconds["wrapped"]),
    )


if __name__ == "__main__":
    main()

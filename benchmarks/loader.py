"""What encoding adds to the wall time of training.

The paper's ResNet-18 is trained in the project's own steps for short epochs in turns: from an
`EncodedLoader` (cross-dataset, k = 4), and from normalized floats that lie in memory ready to use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import medians, quick, report_steps
from benchmarks.workload import CLASSES, SHAPE, random_table
from instahide.encryption.encoder import Encoder
from instahide.encryption.scheme import Scheme
from instahide.training import models
from instahide.training.data.encoded_loader import BLOCK, EncodedLoader
from instahide.training.settings import TrainSettings
from instahide.training.training_state import TrainingState


class PlainLoader:
    """Batches of images and labels that are already what the network takes."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(self.images)).split(self.batch_size):
            yield self.images[rows], self.labels[rows]


def train_epoch(state: TrainingState, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    for images, labels in batches:
        # As the training loop does, nothing is read back between two steps.
        state.learn(images, labels, rate=0.01)


def main() -> None:
    tiny = quick(__doc__)
    # Two of the loader's blocks: the one that training waits for, and one that it does not.
    count, batch, rounds = (64, 16, 1) if tiny else (2 * BLOCK, 128, 3)
    table, public = random_table(count), random_table(64 if tiny else 10_000, seed=1)
    network = models.build("resnet18", SHAPE[0], CLASSES, sign_invariant=False)
    settings = TrainSettings(model="resnet18", batch_size=batch, device="cpu")
    state = TrainingState.start(network, settings)
    state.model.train()
    plain = PlainLoader(
        torch.from_numpy(table.normalized()),
        torch.eye(CLASSES)[torch.from_numpy(table.labels)],
        batch,
    )
    encoded = EncodedLoader(Encoder(Scheme.cross(4), table, public), batch)
    seconds = medians(
        {
            "plain": partial(train_epoch, state, plain),
            "encoded": partial(train_epoch, state, encoded),
        },
        rounds,
    )
    report_steps(
        f"Training ResNet-18 in {state.fabric.strategy.precision.precision}, batches of {batch}",
        len(plain),
        ("a step on floats in memory", seconds["plain"]),
        ("a step on encodings", seconds["encoded"]),
    )


if __name__ == "__main__":
    main()

"""What the Lightning callback adds to the wall time of a run.

The paper's ResNet-18 is trained for short epochs by `Trainer.fit`, in turns with the callback
(cross-dataset, k = 4) and without, from the same `DataLoader` over a data set that normalizes every
item, in two workers.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from functools import partial

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.measure import medians, quick, report_steps
from benchmarks.workload import CLASSES, SHAPE, random_table
from benchmarks.wrapping import WORKERS, Items
from instahide import Scheme
from instahide.integrations.lightning.callback import InstaHideCallback
from instahide.training import models


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = models.build("resnet18", SHAPE[0], CLASSES, sign_invariant=False)

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)


def train_epoch(
    module: LightningModule, loader: DataLoader[object], folder: str, *callbacks: Callback
) -> None:
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, callbacks=list(callbacks), default_root_dir=folder,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)


def main() -> None:
    tiny = quick(__doc__)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    count, batch, rounds = (32, 16, 1) if tiny else (4096, 128, 3)
    table, public = random_table(count), random_table(64 if tiny else 10_000, seed=1)
    loader = DataLoader(Items(table), batch, shuffle=True, num_workers=WORKERS)
    hide = InstaHideCallback(Scheme.cross(4), public=public, mean=table.mean, std=table.std)
    with tempfile.TemporaryDirectory() as folder:
        epoch = partial(train_epoch, Classifier(), loader, folder)
        seconds = medians({"plain": epoch, "encrypted": partial(epoch, hide)}, rounds)
    report_steps(
        f"Training ResNet-18 by Lightning, batches of {batch}",
        len(loader),
        ("a step on images", seconds["plain"]),
        ("a step on encodings", seconds["encrypted"]),
    )


if __name__ == "__main__":
    main()

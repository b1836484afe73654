"""Train on encodings with PyTorch Lightning, by adding one callback.

    python examples/lightning_training.py [PROCESSES]

The last line of output is a JSON object.
"""

import json
import sys

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from instahide import Scheme, open_split
from instahide.integrations.lightning import InstaHideCallback


class Digits(LightningDataModule):
    def setup(self, stage: str) -> None:
        tables = [(table.normalized(), table.labels) for table in open_split("digits")]
        self.data = [TensorDataset(*map(torch.from_numpy, arrays)) for arrays in tables]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.data[0], batch_size=32, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.data[1], batch_size=256)


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.abs().flatten(1))  # The signs of encodings are random.

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], number: int) -> None:
        right = self(batch[0]).argmax(1) == batch[1]
        self.log("accuracy", right.float().mean(), batch_size=len(right), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 3e-3)


if __name__ == "__main__":
    seed_everything(0)  # Seeds the network. Keys do not depend on it.
    hide = InstaHideCallback(Scheme.inside(k=4), classes=10)  # The only change.
    processes = int(sys.argv[1]) if sys.argv[1:] else 1
    trainer = Trainer(devices=processes, max_epochs=12, callbacks=hide)
    trainer.fit(Classifier(), Digits())
    if trainer.is_global_zero:
        print(json.dumps({name: float(value) for name, value in trainer.callback_metrics.items()}))

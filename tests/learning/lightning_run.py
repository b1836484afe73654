"""Training by Lightning on images that show what was mixed, in this process or in several.

``python -m tests.learning.lightning_run FOLDER EPOCHS`` trains in ``FOLDER`` and keeps there what
every process was given in every epoch, and checkpoints. See `main` for the options.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from instahide import Scheme
from instahide.learning.lightning import InstaHideCallback

#: An odd number: two processes have one image in common.
IMAGES = 21
LOW, HIGH = -0.1, 1.0
#: Two images in a mix, whose coefficients are large enough to be told from nothing.
PAIRS = Scheme.inside(2)


class Mixes(NamedTuple):
    """What n encodings show: the images (n, 2) in each, and the signs (n, 64) of its mask."""

    images: NDArray[np.int64]
    masks: NDArray[np.bool]


def telling(count: int = IMAGES) -> TensorDataset:
    """Images (1, 8, 8) of up to 64 classes, one each: image i is high in pixel i and low elsewhere."""
    images = torch.full((count, 64), LOW)
    images[range(count), range(count)] = HIGH
    return TensorDataset(images.reshape(count, 1, 8, 8), torch.arange(count))


def mixes(encodings: NDArray[np.float32]) -> Mixes:
    """Read encodings (n, 1, 8, 8) of pairs of `telling` images."""
    values = encodings.reshape(len(encodings), 64)
    # A coefficient lies between 0.35 and 0.65, so that where an image is high, the mix is positive.
    high = np.abs(values) > 0.2
    assert (high.sum(1) == 2).all()
    return Mixes(np.nonzero(high)[1].reshape(-1, 2), (values < 0) == high)


class Net(LightningModule):
    """Notes the batches that it is given, by stage."""

    def __init__(self, classes: int = IMAGES) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
        self.given: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.given["train"].append(batch)
        losses = [F.cross_entropy(self.network(x), y) for x, y in pairs(batch)]
        return torch.stack(losses).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.given["val"].append(batch)
        self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.given["test"].append(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        self.given["predict"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def pairs(batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels in a batch of one or more loaders."""
    if isinstance(batch, (list, tuple)) and isinstance(batch[0], Tensor):
        yield batch[0], batch[1]
        return
    for part in batch.values() if isinstance(batch, dict) else batch:
        if part is not None:
            yield from pairs(part)


class Images(LightningDataModule):
    """The same loaders every time they are asked for."""

    def __init__(self, train: Any = None, **options: Any) -> None:
        super().__init__()
        self.data = telling()
        options = {"batch_size": 4, "shuffle": True} | options
        self.train = DataLoader(self.data, **options) if train is None else train
        self.plain = DataLoader(self.data, batch_size=8)

    def train_dataloader(self) -> Any:
        return self.train

    def val_dataloader(self) -> Any:
        return self.plain

    test_dataloader = predict_dataloader = val_dataloader


class Keeping(Net):
    """Keeps what it is given in an epoch in a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_epoch_end(self) -> None:
        batches, self.given["train"] = self.given["train"], []
        name = f"{self.current_epoch}-{self.global_rank}-{os.getpid()}.npy"
        partial = self.folder / f"{name}.partial"
        with partial.open("wb") as file:
            np.save(file, torch.cat([images for images, _ in batches]).numpy())
        partial.rename(self.folder / name)


def kept(folder: Path, epoch: int | str = "*", rank: int | str = "*") -> Mixes:
    """What processes were given, in files of `Keeping`."""
    files = sorted(folder.glob(f"{epoch}-{rank}-*.npy"))
    return mixes(np.concatenate([np.load(file) for file in files]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--devices", type=int, default=1, help="processes")
    parser.add_argument("--resume", help="a checkpoint")
    parser.add_argument("--limit", type=int, help="of the exposure")
    parser.add_argument("--everywhere", action="store_true", help="all images in all processes")
    options = parser.parse_args()
    # The same in every process and in every run: keys must not come of it.
    seed_everything(1, workers=True, verbose=False)
    callback = InstaHideCallback(PAIRS, classes=IMAGES, max_exposure=options.limit)
    warnings.simplefilter("ignore")
    trainer = Trainer(
        accelerator="cpu",
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        use_distributed_sampler=not options.everywhere,
        max_epochs=options.epochs,
        callbacks=[callback, ModelCheckpoint(options.folder, "last", enable_version_counter=False)],
        default_root_dir=options.folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Keeping(options.folder), Images(), ckpt_path=options.resume)


if __name__ == "__main__":
    main()

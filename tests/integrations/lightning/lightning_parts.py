"""What tests of the Lightning callback train, on images that show what was mixed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from instahide import Scheme
from instahide.integrations.lightning.callback import InstaHideCallback

#: For the tests of a file.
QUIET = [
    # Lightning's advice on how to be faster, and notes on what these tests do on purpose.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:You requested to overfit"),
    pytest.mark.filterwarnings("ignore:.*ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but"),
]
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
    """Images (1, 8, 8), each of a class of its own: image i is high in pixel i, low elsewhere."""
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

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.given["test"].append(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.given["predict"].append(batch)
        return batch[1]

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


def trainer_in(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks),
        **{**quiet, "max_epochs": 2, "enable_checkpointing": False, **options},
    )  # fmt: skip


def hiding(**options: Any) -> InstaHideCallback:
    return InstaHideCallback(**{"scheme": PAIRS, "classes": IMAGES, **options})


def trained(net: Net) -> Mixes:
    """What a network was given to train on, all of it encodings with soft labels of `telling`."""
    given = list(pairs(net.given["train"]))
    found = mixes(torch.cat([images for images, _ in given]).numpy())
    labels = torch.cat([labels for _, labels in given])
    np.testing.assert_array_equal(labels.nonzero()[:, 1].reshape(-1, 2), found.images)
    torch.testing.assert_close(labels.sum(1), torch.ones(len(labels)))
    return found


def counted(found: Mixes, images: int = IMAGES) -> NDArray[np.int64]:
    return np.bincount(found.images.reshape(-1), minlength=images)


def all_differ(masks: NDArray[np.bool]) -> bool:
    return len(np.unique(masks, axis=0)) == len(masks)


def checkpoint(path: Path) -> dict[str, Any]:
    # With weights_only, nothing but tensors and plain values can be in it.
    state: dict[str, Any] = torch.load(path, weights_only=True)["callbacks"]["InstaHideCallback"]
    return state


def saving(folder: Path, every: int | None = None) -> ModelCheckpoint:
    """Keeps the last checkpoint: of an epoch, or of ``every`` so many steps."""
    return ModelCheckpoint(folder, "last", every_n_train_steps=every, enable_version_counter=False)

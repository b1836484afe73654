"""PyTorch Lightning's `Trainer` and Fabric: no order leads to a plain image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DistributedSampler

from instahide import InstaHideError
from tests.integrations.matrix import COUNT, SCHEME, check, encoded, network, plain

pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def fabric() -> Any:
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


FABRIC: dict[str, Any] = {
    "`setup_dataloaders`, then `encode_loader`": lambda f: encoded(f.setup_dataloaders(plain())),
    "`encode_loader`, then `setup_dataloaders`": lambda f: f.setup_dataloaders(encoded()),
}


@pytest.mark.parametrize("order", FABRIC)
def test_fabric(fabric: Any, order: str) -> None:
    refusal = (TypeError, "Only PyTorch DataLoader")
    check("Fabric", order, lambda: FABRIC[order](fabric), refusal)


def test_fabric_still_tells_the_sampler_of_epochs(fabric: Any) -> None:
    sampler: Any = DistributedSampler(range(COUNT), num_replicas=2, rank=0)
    prepared = fabric.setup_dataloaders(
        plain(shuffle=False, sampler=sampler), use_distributed_sampler=False
    )
    loader = encoded(prepared)
    orders = []
    for _ in range(2):
        list(loader)
        orders.append(list(sampler))
    assert sampler.epoch == 1
    assert orders[0] != orders[1]
    assert loader.exposure.counts.sum() == 2 * COUNT


def fitted(train: Any, folder: Path, *callbacks: Any) -> Any:
    from pytorch_lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()
            self.seen: list[Any] = []

        def training_step(self, batch: Any, index: int) -> Any:
            self.seen.append(batch)
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(module, train)
    return module


def test_trainer(tmp_path: Path) -> None:
    from instahide.integrations.lightning.callback import InstaHideCallback

    callback = InstaHideCallback(SCHEME)
    orders: dict[str, Any] = {
        "a wrapped loader given to `fit`": lambda: fitted(encoded(), tmp_path),
        "`InstaHideCallback`": lambda: fitted(plain(), tmp_path, callback),
    }
    for order, fit in orders.items():
        check("Lightning `Trainer`", order, lambda fit=fit: fit().seen)


def test_what_a_trainer_holds_while_it_trains_shows_no_item(tmp_path: Path) -> None:
    from pytorch_lightning import Callback

    from instahide.integrations.lightning.callback import InstaHideCallback

    class Looking(Callback):
        looked = 0

        def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
            with pytest.raises(InstaHideError):
                trainer.train_dataloader.dataset[0]
            type(self).looked += 1

    fitted(plain(), tmp_path, InstaHideCallback(SCHEME), Looking())
    assert Looking.looked == 8

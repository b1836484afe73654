"""A Lightning run with the callback: encrypted where it trains, and otherwise as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import seed_everything
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from instahide import EncodedLoader, Encoder, InstaHideError, open_split
from instahide.integrations.lightning.loaders import give_encrypted
from tests.integrations.lightning.lightning_parts import (
    IMAGES,
    PAIRS,
    QUIET,
    Images,
    Net,
    all_differ,
    checkpoint,
    counted,
    hiding,
    telling,
    trained,
    trainer_in,
)

pytestmark = QUIET
#: Batches of an epoch of `ImageSource`.
BATCHES = 6


@pytest.fixture(autouse=True)
def _seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `seed_everything` says to processes to come ends with the test."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")


def test_only_what_it_trains_on_is_encrypted(tmp_path: Path) -> None:
    net, data, callback = Net(), Images(), hiding()
    trainer = trainer_in(tmp_path, callback, num_sanity_val_steps=1)
    trainer.fit(net, data)
    trainer.test(net, data, verbose=False)
    trainer.predict(net, data)
    found = trained(net)
    assert len(found.images) == 2 * IMAGES
    assert counted(found).tolist() == callback.exposures[0].counts.tolist()
    assert all_differ(found.masks)
    # The sanity check's batch and two passes of three.
    assert [len(net.given[stage]) for stage in ("val", "test", "predict")] == [7, 3, 3]
    for images, labels in [*net.given["val"], *net.given["test"], *net.given["predict"]]:
        expected = data.data.tensors[0][labels]
        assert torch.equal(images, expected)


def test_the_trainer_is_as_it_was_afterwards(tmp_path: Path) -> None:
    data, callback = Images(), hiding()
    before = dict(vars(data.train))
    trainer = trainer_in(tmp_path, callback, max_epochs=1)
    trainer.fit(Net(), data)
    assert trainer.train_dataloader is data.train
    assert "process_dataloader" not in vars(trainer.strategy)
    assert vars(data.train) == before
    trainer.callbacks.remove(callback)
    trainer.fit_loop.max_epochs = 2
    net = Net()
    trainer.fit(net, data)
    assert all(labels.dtype == torch.int64 for _, labels in net.given["train"])


class BrokenError(Exception):
    pass


class Broken(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise BrokenError


def test_the_trainer_is_as_it_was_after_an_error(tmp_path: Path) -> None:
    data, callback = Images(), hiding()
    trainer = trainer_in(tmp_path, callback)
    with pytest.raises(BrokenError):
        trainer.fit(Broken(), data)
    assert trainer.train_dataloader is data.train
    assert "process_dataloader" not in vars(trainer.strategy)
    # Whatever was asked for ahead has been counted; nothing else.
    assert 0 < callback.exposures[0].counts.sum() <= 2 * IMAGES


def two() -> list[DataLoader[Any]]:
    return [DataLoader(telling(), 4, shuffle=True), DataLoader(telling(9), 4, shuffle=True)]


@pytest.mark.parametrize("mode", ["max_size_cycle", "min_size", "max_size"])
def test_loaders_may_come_in_any_collection(mode: str, tmp_path: Path) -> None:
    one, other = two()
    collections: dict[str, Any] = {
        "list": [one, other],
        "dict": {"a": one, "b": other},
        "nested": {"a": one, "b": [other]},
    }
    for name, collection in collections.items():
        net, callback = Net(), hiding()
        combined = CombinedLoader(collection, mode)  # type: ignore[arg-type]
        trainer_in(tmp_path, callback).fit(net, Images(combined))
        assert len(net.given["train"]) == 2 * (3 if mode == "min_size" else BATCHES), name
        found = trained(net)
        assert all_differ(found.masks), name
        # Those of both loaders have the same images, as far as the smaller one goes.
        first, second = (exposure.counts for exposure in callback.exposures)
        assert [len(first), len(second)] == [IMAGES, 9]
        total = first + np.pad(second, (0, IMAGES - 9))
        assert (counted(found) <= total).all(), name
        if mode != "min_size":
            assert (counted(found)[9:] == total[9:]).all(), name
        assert combined.flattened == [one, other]


@pytest.mark.parametrize("given", [0, 1])
def test_loaders_in_a_plain_collection_are_encrypted(given: int, tmp_path: Path) -> None:
    loaders = two()
    collection: Any = [loaders, dict(zip("ab", loaders, strict=True))][given]
    net, callback = Net(), hiding()
    trainer = trainer_in(tmp_path, callback, max_epochs=1)
    trainer.fit(net, collection)
    assert trainer.train_dataloader == collection
    assert len(trained(net).images) == IMAGES + 2 * 9
    assert [exposure.images for exposure in callback.exposures] == [IMAGES, 9]


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"limit_train_batches": 2}, 4),
        ({"limit_train_batches": 0.5}, 6),
        ({"fast_dev_run": True}, 1),
        ({"overfit_batches": 2}, 4),
        ({"accumulate_grad_batches": 4}, 12),
        ({"reload_dataloaders_every_n_epochs": 1}, 12),
        ({"val_check_interval": 2}, 12),
        ({"max_epochs": -1, "max_steps": 8}, 8),
        ({"barebones": True, "logger": None, "enable_progress_bar": None,
          "enable_model_summary": None, "enable_checkpointing": None}, 12),
    ],
)  # fmt: skip
def test_a_trainer_may_be_set_in_any_way(
    options: dict[str, Any], batches: int, tmp_path: Path
) -> None:
    net, callback = Net(), hiding()
    trainer_in(tmp_path, callback, **options).fit(net, Images())
    assert len(net.given["train"]) == batches
    found = trained(net)
    assert all_differ(found.masks)
    # A pass that is cut short has asked for some more.
    assert (callback.exposures[0].counts >= counted(found)).all()


class Anew(Images):
    """New loaders and a new data set every time they are asked for."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def train_dataloader(self) -> Any:
        return {"a": DataLoader(telling(self.sizes.pop(0)), 4), "b": DataLoader(telling(7), 4)}


def test_new_loaders_go_on_counting(tmp_path: Path) -> None:
    net, callback = Net(), hiding()
    trainer = trainer_in(tmp_path, callback, reload_dataloaders_every_n_epochs=1)
    trainer.fit(net, Anew([IMAGES] * 2))
    assert callback.exposures[0].counts.sum() == 2 * 2 * IMAGES
    assert len(callback.exposures[1].counts) == 7


def test_a_data_set_of_another_size_is_refused(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, hiding(), reload_dataloaders_every_n_epochs=1)
    with pytest.raises(InstaHideError, match=r"loader 0 has 9 items now and had 21"):
        trainer.fit(Net(), Anew([IMAGES, 9]))


def test_one_collection_given_every_time(tmp_path: Path) -> None:
    combined = CombinedLoader(two())
    net = Net()
    trainer = trainer_in(tmp_path, hiding(), reload_dataloaders_every_n_epochs=1)
    trainer.fit(net, Images(combined))
    assert all_differ(trained(net).masks)
    assert all(isinstance(loader, DataLoader) for loader in combined.flattened)


def test_equal_seeds_give_other_keys(tmp_path: Path) -> None:
    """Also in workers that live for several epochs."""
    found = []
    for workers in (0, 2):
        seed_everything(3, workers=True, verbose=False)
        net = Net()
        options = {"num_workers": workers, "persistent_workers": workers > 0}
        trainer_in(tmp_path, hiding()).fit(net, Images(**options))
        found.append(trained(net))
    assert all_differ(np.concatenate([each.masks for each in found]))
    assert found[0].images.tolist() != found[1].images.tolist()


class Drawn(Dataset[dict[str, Any]]):
    """Telling images, each with a number from the generator that Lightning seeds in workers."""

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = telling()[index]
        return {"image": image, "label": label, "drawn": np.random.randint(1 << 30)}


class NetOfDrawn(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.given["train"].append(batch["drawn"])
        return super().training_step([[batch["image"], batch["label"]]], batch_idx)


@pytest.mark.parametrize("seeded", [True, False])
def test_workers_are_seeded_as_without_it(seeded: bool, tmp_path: Path) -> None:
    first = []
    for callbacks in ([], [hiding()]):
        seed_everything(3, workers=seeded, verbose=False)
        generator = torch.Generator().manual_seed(5)
        loader = DataLoader(Drawn(), 4, num_workers=1, generator=generator)
        net = NetOfDrawn()
        trainer_in(tmp_path, *callbacks, max_epochs=1).fit(net, loader)
        first.append(net.given["train"][0][0].item())
        assert (loader.worker_init_fn is not None) is seeded
    # The first item that the worker fetched, before any partner.
    assert first[0] == first[1]


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter(telling())


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(Stream(), 4), "map-style data set"),
        ([telling()[0]], "not a PyTorch DataLoader"),
        (EncodedLoader(Encoder(PAIRS, open_split("digits").train), 8), "encodings already"),
        (DataLoader(TensorDataset(torch.rand(9, 1, 8, 8), torch.arange(9)), 4), "one sign"),
    ],
)
def test_what_cannot_be_encrypted_is_refused(loader: Any, message: str, tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, hiding())
    with pytest.raises(InstaHideError, match=message):
        trainer.fit(Net(), loader)
    assert "process_dataloader" not in vars(trainer.strategy)


def test_processes_that_share_a_batch_are_refused() -> None:
    """As in tensor parallelism, which needs GPUs."""
    trainer: Any = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 2}, world_size=4)
    with pytest.raises(InstaHideError, match=r"4 processes share 2 shards"):
        give_encrypted(trainer, lambda loader: pytest.fail("never asked"))


def test_a_limit_that_allows_nothing_is_refused() -> None:
    with pytest.raises(InstaHideError, match="limit of encodings per image"):
        hiding(max_exposure=0)


@pytest.mark.slow
def test_the_unified_package_works_too(tmp_path: Path) -> None:
    """It has classes of its own, which this callback is not one of."""
    unified = pytest.importorskip("lightning.pytorch")

    class Unified(unified.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, IMAGES))
            self.given: dict[str, list[Any]] = {"train": []}

        training_step = Net.training_step
        configure_optimizers = Net.configure_optimizers

    net, callback = Unified(), hiding()
    trainer = unified.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[callback], logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(net, Images().train)
    assert counted(trained(net)).tolist() == callback.exposures[0].counts.tolist()
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    assert checkpoint(tmp_path / "it.ckpt")["counts"][0].sum() == 4 * IMAGES


GROUPS = np.arange(IMAGES) // 3
NAMES = [f"Miller, Anna {group}" for group in GROUPS]


@pytest.mark.parametrize("in_ledger", [False, True])
@pytest.mark.parametrize("groups", [NAMES, lambda item: NAMES[item]], ids=["names", "function"])
def test_groups_are_counted_and_never_mixed_with_themselves(
    groups: Any, in_ledger: bool, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite" if in_ledger else None
    net, callback = Net(), hiding(groups=groups, ledger=ledger)
    trainer = trainer_in(tmp_path, callback)
    trainer.fit(net, Images())
    pairs = GROUPS[trained(net).images]
    assert (pairs[:, 0] != pairs[:, 1]).all()
    true = np.bincount(pairs.reshape(-1))
    assert callback.exposures[0].counts.tolist() == true[GROUPS].tolist()
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    assert b"Miller" not in (tmp_path / "it.ckpt").read_bytes()
    if ledger is None:
        assert checkpoint(tmp_path / "it.ckpt")["counts"][0].sum() == true.sum()


def test_groups_of_another_number_of_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InstaHideError, match="21 images but the groups of 20"):
        trainer_in(tmp_path, hiding(groups=NAMES[1:])).fit(Net(), Images())

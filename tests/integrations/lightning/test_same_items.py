"""Counts by item number hold for the images that were counted; other images are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler

from instahide.errors import IntegrationError
from instahide.integrations.lightning.callback import InstaHideCallback
from tests.integrations.lightning.lightning_parts import (
    IMAGES,
    QUIET,
    Images,
    Net,
    hiding,
    saving,
    telling,
    trainer_in,
)

pytestmark = QUIET
REFUSED = "not hold the same images"
ALL = telling()
PART = 12


def loader_of(rows: Any, data: Any = ALL, **options: Any) -> DataLoader[Any]:
    return DataLoader(Subset(data, list(rows)), 4, **options)


def fit(
    folder: Path,
    loader: Any,
    epochs: int = 1,
    callback: InstaHideCallback | None = None,
    resumed: bool = False,
    **options: Any,
) -> InstaHideCallback:
    callback = callback or hiding(**options)
    trainer = trainer_in(
        folder, callback, saving(folder), enable_checkpointing=True, max_epochs=epochs
    )
    path = folder / "last.ckpt"
    trainer.fit(Net(), Images(train=loader), ckpt_path=path if resumed else None)
    return callback


#: As many items as in ``range(PART)``: of other images, of some others, in another order.
OTHERS = {
    "disjoint": range(9, 9 + PART),
    "overlapping": [*range(PART - 1), 20],
    "reversed": range(PART - 1, -1, -1),
    "swapped": [1, 0, *range(2, PART)],
}


@pytest.mark.parametrize("rows", OTHERS.values(), ids=OTHERS.keys())
def test_a_run_does_not_resume_with_other_images(tmp_path: Path, rows: Any) -> None:
    fit(tmp_path, loader_of(range(PART)))
    with pytest.raises(IntegrationError, match=f"{REFUSED}.*ledger="):
        fit(tmp_path, loader_of(rows), 2, resumed=True)
    fit(tmp_path, loader_of(range(PART)), 2, resumed=True)


@pytest.mark.parametrize("rows", OTHERS.values(), ids=OTHERS.keys())
def test_a_callback_does_not_count_other_images_in_a_second_fit(tmp_path: Path, rows: Any) -> None:
    callback = fit(tmp_path, loader_of(range(PART)))
    counts = callback.exposures[0].counts.tolist()
    with pytest.raises(IntegrationError, match=REFUSED):
        fit(tmp_path, loader_of(rows), callback=callback)
    assert callback.exposures[0].counts.tolist() == counts


class Splitting(LightningDataModule):
    """A new loader in every epoch, of the rows that ``split`` returns."""

    def __init__(self, split: Callable[[], Any]) -> None:
        super().__init__()
        self.split = split

    def train_dataloader(self) -> DataLoader[Any]:
        return loader_of(self.split(), shuffle=True)


@pytest.mark.parametrize("changed", [False, True])
def test_a_split_that_is_new_in_every_epoch_is_refused(tmp_path: Path, changed: bool) -> None:
    splits = iter(range(10))
    trainer = trainer_in(
        tmp_path, hiding(), max_epochs=3, reload_dataloaders_every_n_epochs=1
    )  # fmt: skip
    module = Splitting(lambda: range(start := next(splits) * changed, start + PART))
    if changed:
        with pytest.raises(IntegrationError, match=REFUSED):
            trainer.fit(Net(), module)
    else:
        trainer.fit(Net(), module)
    assert trainer.current_epoch == (1 if changed else 3)


def test_the_loader_whose_images_changed_is_found_among_several(tmp_path: Path) -> None:
    rows = range(9, 9 + PART)
    first = {"a": loader_of(range(PART)), "b": loader_of(rows, telling())}
    callback = fit(tmp_path, first)
    fit(tmp_path, first, callback=callback)
    for changed in (loader_of(rows, telling()), first["b"]):
        with pytest.raises(IntegrationError, match=REFUSED):
            fit(tmp_path, {"a": changed, "b": first["b"]}, callback=callback)


def sampled(rows: Any, data: Any = ALL) -> DataLoader[Any]:
    return DataLoader(data, 4, sampler=SubsetRandomSampler(list(rows)))


def test_samplers_may_choose_other_items_of_one_data_set(tmp_path: Path) -> None:
    fit(tmp_path, sampled(range(PART)))
    callback = fit(tmp_path, sampled(range(9, IMAGES)), 2, resumed=True)
    assert (callback.exposures[0].counts > 0).all()


def test_items_that_were_counted_are_compared_also_if_the_sampler_omits_them(
    tmp_path: Path,
) -> None:
    fit(tmp_path, sampled(range(PART)))
    changed = telling()
    changed.tensors[0][0] += 1
    with pytest.raises(IntegrationError, match=REFUSED):
        fit(tmp_path, sampled(range(9, IMAGES), changed), 2, resumed=True)


class Reading(Dataset[Any]):
    """Images that a function changes, and the numbers of those that were read."""

    def __init__(self, change: Callable[[Tensor, int], Tensor]) -> None:
        self.change = change
        self.read: set[int] = set()

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.read.add(index)
        return self.change(ALL[index][0], index), index


def test_items_that_no_epoch_needed_are_not_read(tmp_path: Path) -> None:
    for run, resumed in enumerate([False, True]):
        data = Reading(lambda image, _: image)
        fit(tmp_path, sampled(range(PART), data), 1 + run, resumed=resumed)
        assert data.read == set(range(PART))


def noise(image: Tensor, _: int) -> Tensor:
    return image + torch.rand(image.shape) / 50


def unknown_noise(image: Tensor, _: int) -> Tensor:
    return image + os.urandom(1)[0] / 10_000


def rarely_unknown_noise(image: Tensor, index: int) -> Tensor:
    """Not in the item by which a scan tells that items change."""
    return image if index == 0 else unknown_noise(image, index)


@pytest.mark.filterwarnings("ignore:The items of the data set change")
@pytest.mark.parametrize("change", [noise, unknown_noise, rarely_unknown_noise])
@pytest.mark.parametrize("workers", [0, 1])
def test_random_transforms_are_not_taken_for_other_images(
    tmp_path: Path, change: Any, workers: int
) -> None:
    for run, resumed in enumerate([False, True, True]):
        loader = DataLoader(Reading(change), 4, num_workers=workers)
        callback = fit(tmp_path, loader, 1 + run, resumed=resumed)
    fit(tmp_path, DataLoader(Reading(change), 4), callback=callback)
    assert callback.exposures[0].counts.sum() == 2 * 4 * IMAGES


def test_known_random_transforms_of_other_images_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, loader_of(range(PART), Reading(noise)))
    with pytest.raises(IntegrationError, match=REFUSED):
        fit(tmp_path, loader_of(range(9, 9 + PART), Reading(noise)), 2, resumed=True)


def test_images_of_two_runs_must_both_be_the_same(tmp_path: Path) -> None:
    """The counts of a checkpoint are added to those of a callback that has counted already."""
    fit(tmp_path, sampled(range(PART)))
    callback = fit(tmp_path / "own", sampled(range(9, IMAGES)))
    for changed in (0, IMAGES - 1):
        other = telling()
        other.tensors[0][changed] += 1
        with pytest.raises(IntegrationError, match=REFUSED):
            fit(tmp_path, sampled(range(9, 12), other), 2, callback, resumed=True)
    fit(tmp_path, sampled(range(9, 12)), 2, callback, resumed=True)


def test_a_ledger_counts_any_split(tmp_path: Path) -> None:
    options = {"ledger": tmp_path / "ledger.sqlite"}
    fit(tmp_path, loader_of(range(PART)), **options)
    callback = fit(tmp_path, loader_of(range(9, 9 + PART)), 2, resumed=True, **options)
    assert callback.exposures[0].counts[:3].min() >= 2

"""Training loaders of one data set count in one place, and share one limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset, Subset

from instahide.errors import IntegrationError
from instahide.integrations.lightning.callback import InstaHideCallback
from instahide.integrations.lightning.shared_items import first_places
from tests.integrations.lightning.lightning_parts import (
    IMAGES,
    QUIET,
    Images,
    Net,
    checkpoint,
    counted,
    hiding,
    saving,
    telling,
    trained,
    trainer_in,
)

pytestmark = QUIET
ONE, OTHER = telling(), telling()
EVEN, ODD = Subset(ONE, list(range(0, IMAGES, 2))), Subset(ONE, list(range(1, IMAGES, 2)))


def loaders(*datasets: Dataset[Any]) -> list[DataLoader[Any]]:
    return [DataLoader(dataset, 4, shuffle=True) for dataset in datasets]


def fit(
    folder: Path, train: Any, callback: InstaHideCallback, epochs: int = 2, path: Any = None
) -> Net:
    net = Net()
    saved = saving(folder)
    trainer = trainer_in(folder, callback, saved, enable_checkpointing=True, max_epochs=epochs)
    trainer.fit(net, Images(train), ckpt_path=path)
    return net


@pytest.mark.parametrize("mode", ["max_size_cycle", "max_size", "min_size"])
@pytest.mark.parametrize("subset", [False, True])
def test_loaders_of_one_data_set_share_the_limit(mode: Any, subset: bool, tmp_path: Path) -> None:
    """The run ends as an early stop does, whichever of them reaches it."""
    rows = list(range(IMAGES))
    parts = (Subset(ONE, rows), Subset(ONE, rows)) if subset else (ONE, ONE)
    callback = hiding(max_exposure=12)
    with pytest.warns(UserWarning, match="above 12 encodings"):
        net = fit(tmp_path, CombinedLoader(loaders(*parts), mode), callback, epochs=20)
    one, other = callback.exposures
    assert one is other
    assert one.counts.max() <= 12
    found = counted(trained(net))
    assert (found <= one.counts).all()
    assert found.sum() > 4 * IMAGES


@pytest.mark.parametrize("more", range(3))
def test_loaders_of_two_data_sets_end_together(more: int, tmp_path: Path) -> None:
    callback = hiding(max_exposure=8 + more)
    with pytest.warns(UserWarning, match="Training ends early"):
        fit(tmp_path, loaders(ONE, OTHER), callback, epochs=20)
    assert all(each.counts.max() <= 8 + more for each in callback.exposures)


def test_counts_of_one_data_set_are_all_encodings(tmp_path: Path) -> None:
    callback = hiding()
    net = fit(tmp_path, loaders(ONE, OTHER, ONE), callback, epochs=1)
    first, second, third = callback.exposures
    assert first is third
    assert [int(each.counts.sum()) for each in (first, second)] == [4 * IMAGES, 2 * IMAGES]
    assert (first.counts + second.counts).tolist() == counted(trained(net)).tolist()
    state = checkpoint(tmp_path / "last.ckpt")
    assert (set(state["counts"]), state["shared"]) == ({0, 1}, {2: 0})


@pytest.mark.parametrize("again", [ONE, OTHER])
def test_a_resumed_run_goes_on_counting_in_one_place(again: Any, tmp_path: Path) -> None:
    """Even if its loaders no longer have the very same data set."""
    callback = hiding()
    before = counted(trained(fit(tmp_path, loaders(ONE, ONE), callback, epochs=1)))
    callback = hiding()
    net = fit(tmp_path, loaders(ONE, again), callback, epochs=2, path=tmp_path / "last.ckpt")
    one, other = callback.exposures
    assert one is other
    assert one.counts.tolist() == (before + counted(trained(net))).tolist()


def test_separate_counts_are_added_once_the_data_set_is_the_same(tmp_path: Path) -> None:
    for resumed in (False, True):
        callback = hiding()
        before = counted(trained(fit(tmp_path, loaders(ONE, OTHER), callback, epochs=1)))
        assert "shared" not in checkpoint(tmp_path / "last.ckpt")
        callback = hiding() if resumed else callback
        path = tmp_path / "last.ckpt" if resumed else None
        net = fit(tmp_path, loaders(ONE, ONE), callback, epochs=1 + resumed, path=path)
        assert callback.exposures[0] is callback.exposures[1]
        total = before + counted(trained(net))
        assert callback.exposures[0].counts.tolist() == total.tolist()


def test_parts_with_common_items_are_refused_without_a_ledger(tmp_path: Path) -> None:
    few = Subset(ONE, [0, 1, 2])
    for parts in ((ONE, EVEN), (EVEN, few), (OTHER, ODD, Subset(Subset(ONE, [5, 6, 7]), [0]))):
        with pytest.raises(IntegrationError, match="common") as caught:
            fit(tmp_path, loaders(*parts), hiding(), epochs=1)
        assert "ledger=" in caught.value.remedy
    callback = hiding(ledger=tmp_path / "ledger.sqlite")
    net = fit(tmp_path, loaders(ONE, EVEN), callback, epochs=1)
    assert callback.exposures[0].counts.tolist() == counted(trained(net)).tolist()


def test_parts_without_common_items_are_counted_apart(tmp_path: Path) -> None:
    callback = hiding()
    net = fit(tmp_path, loaders(EVEN, ODD), callback, epochs=1)
    even, odd = callback.exposures
    found = np.zeros(IMAGES, np.int64)
    found[::2], found[1::2] = even.counts, odd.counts
    assert found.tolist() == counted(trained(net)).tolist()


class Named(Dataset[Any]):
    """Items by name, of which a `Subset` may take some."""

    def __getitem__(self, name: str) -> Any:
        return ONE[int(name)]


def test_places_of_the_same_items() -> None:
    assert first_places([]) == []
    assert first_places([ONE, OTHER, ONE, OTHER, ONE]) == [0, 1, 0, 1, 0]
    nested = Subset(EVEN, [1, 2])
    assert first_places([Subset(ONE, [2, 4]), nested, ODD, OTHER]) == [0, 0, 2, 3]
    arrays: Any = [np.array([2, 4]), torch.tensor([2, 4]), (2, 4)]
    assert first_places([Subset(ONE, rows) for rows in arrays]) == [0, 0, 0]
    assert first_places([Subset(ONE, []), ONE, Subset(ONE, [])]) == [0, 1, 0]
    names: Any = ["a", "b"]
    assert first_places([Subset(Named(), names), Subset(Named(), names)]) == [0, 1]
    with pytest.raises(IntegrationError, match="loaders 0 and 1"):
        # Another order: the numbers of the items differ.
        first_places([Subset(ONE, [2, 4]), Subset(ONE, [4, 2])])

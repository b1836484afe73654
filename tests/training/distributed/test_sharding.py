"""Who trains on what: shares are disjoint and complete, and what does not go together is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instahide.data import ImageTable, Split, open_split
from instahide.errors import InstaHideError
from instahide.training.data.pooled_loader import PooledLoader, folder_batches, own_encodings
from instahide.training.distributed.processes import Processes, usable
from instahide.training.distributed.sharding import shard, shard_split, source_of
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer

CLASSES = ("cat", "dog")


class Recorder(Processes):
    """One of processes that all say the same, which remembers what it told the others."""

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.world_size = size
        self.told: list[Any] = []

    def gather(self, value: Any) -> list[Any]:
        self.told.append(value)
        return [value] * self.world_size


class Rank(Processes):
    """One of several processes, which hears what the others would say."""

    def __init__(self, rank: int, size: int, others: dict[int, dict[str, Any]] | None = None):
        super().__init__()
        self.rank, self.world_size = rank, size
        self.others = others or {}

    def gather(self, value: Any) -> list[Any]:
        return [{**value, **self.others.get(rank, {})} for rank in range(self.world_size)]


def table(count: int, classes: tuple[str, ...] = CLASSES) -> ImageTable:
    """Image i has i in its first pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 4, 4), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    return ImageTable.from_arrays(pixels, np.arange(count) % len(classes), classes)


def numbers(images: ImageTable) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


@given(st.integers(0, 60), st.integers(1, 9))
def test_shares_are_disjoint_complete_and_even(count: int, size: int) -> None:
    shares = [Rank(rank, size).share(count) for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_image_is_in_one_share(tmp_path: Path, size: int, mapped: bool) -> None:
    images = table(20)
    if mapped:
        images.save(tmp_path / "table")
        images = ImageTable.load(tmp_path / "table")
    shares = [shard(images, Rank(rank, size)) for rank in range(size)]
    assert sorted(number for share in shares for number in numbers(share)) == list(range(20))
    for rank, share in enumerate(shares):
        assert numbers(share) == list(range(rank, 20, size))
        assert (share.labels == images.labels[rank::size]).all()
        assert (share.mean, share.std) == (images.mean, images.std)
        # What lies on disk is not read into memory.
        assert isinstance(share.pixels, np.memmap) == mapped


def test_a_source_with_a_rank_in_its_name_is_opened_by_that_rank() -> None:
    assert source_of("clinic-{rank}/x", Rank(3, 4)) == "clinic-3/x"
    assert source_of("clinic", Rank(3, 4)) == "clinic"
    assert source_of("clinic-{rank}", Processes()) == "clinic-{rank}"


def test_images_of_all_are_shared_and_own_ones_are_not() -> None:
    split = Split(table(20), table(7))
    rank = Rank(1, 3)
    train, test = shard_split(split, "digits", None, rank)
    assert (len(train), len(test)) == (7, 2)
    train, test = shard_split(split, "clinic-{rank}", None, rank)
    assert (len(train), len(test)) == (20, 7)
    train, test = shard_split(split, "clinic-{rank}", "digits", rank)
    assert (len(train), len(test)) == (20, 2)
    train, test = shard_split(split, "digits", "test-{rank}", rank)
    assert (len(train), len(test)) == (7, 7)


def test_own_sources_get_one_normalization_and_one_order_of_classes() -> None:
    images = table(20, ("dog", "cat"))
    first = {"images": 60, "classes": ["cat", "dog"], "mean": [0.5], "std": [0.1]}
    train, test = shard_split(Split(images, images), "clinic-{rank}", None, Rank(1, 2, {0: first}))
    for part in (train, test):
        assert part.mean == pytest.approx([(60 * 0.5 + 20 * images.mean[0]) / 80])
        assert part.std == pytest.approx([(60 * 0.1 + 20 * images.std[0]) / 80])
        assert part.classes == ("cat", "dog")
        assert (part.labels == 1 - images.labels).all()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"shape": [3, 8, 8]}, r"rank 1 of \(3, 8, 8\)"),
        ({"classes": ["cat", "horse"]}, "dog only in rank 0, horse only in rank 1"),
        ({"classes": ["cat"]}, "dog only in rank 0, none only in rank 1"),
    ],
)
def test_own_sources_that_do_not_go_together_are_refused(other: dict[str, Any], said: str) -> None:
    split = Split(table(20), table(7))
    with pytest.raises(InstaHideError, match=said):
        shard_split(split, "clinic-{rank}", None, Rank(0, 2, {1: other}))


@pytest.mark.parametrize("other", [{"images": 21}, {"mean": [0.1]}, {"classes": ["cat"]}])
def test_shared_images_must_be_the_same_everywhere(other: dict[str, Any]) -> None:
    split = Split(table(20), table(7))
    with pytest.raises(InstaHideError, match="other images for rank 1 than for rank 0"):
        shard_split(split, "photos", None, Rank(0, 2, {1: other}))


def test_a_share_of_one_image_is_refused() -> None:
    with pytest.raises(InstaHideError, match="fewer processes"):
        shard_split(Split(table(20), table(7)), "digits", None, Rank(19, 20))


@pytest.mark.parametrize("size", [2, 3])
def test_every_encoding_is_read_by_one_rank(
    tmp_path: Path, write_folder: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.arange(37.0)[:, None, None, None].expand(37, 1, 4, 4) / 100
    labels = torch.nn.functional.one_hot(torch.arange(37) % 2, 2).float()
    folder = write_folder(tmp_path / "a", images, labels, shard=10)
    # Stretches of two encodings, in two windows or more.
    monkeypatch.setattr("instahide.training.data.pooled_loader.STRETCH_VALUES", 32)
    monkeypatch.setattr("instahide.training.data.pooled_loader.WINDOW_VALUES", 160)
    read, tested, counted = [], [], 0
    for rank in range(size):
        processes = Rank(rank, size)
        loader = PooledLoader([folder], 4, processes=processes)
        batches = list(loader)
        assert len(batches) == len(loader)
        read += [value for batch in batches for value in batch.images[:, 0, 0, 0].tolist()]
        own = [batch for batch, _ in folder_batches(folder, CLASSES, 3, processes)]
        tested += [value for batch in own for value in batch[:, 0, 0, 0].tolist()]
        counted += own_encodings(folder, processes)
    expected = pytest.approx((np.arange(37) / 100).tolist())
    assert sorted(read) == expected
    assert sorted(tested) == expected
    assert counted == 37


def test_a_single_encoding_is_no_batch() -> None:
    single = torch.zeros(1, 3, 8, 8), torch.zeros(1, 5)
    encodings, labels = usable(single)
    assert (encodings.shape, labels.shape) == ((0, 3, 8, 8), (0, 5))
    pair = torch.zeros(2, 3, 8, 8), torch.zeros(2, 5)
    assert usable(pair) is pair
    assert [count for *_, count in Processes().steps([pair, single])] == [2, 0]


def test_nothing_is_told_that_grows_with_the_images() -> None:
    """No list is as long as a batch, of coefficients or of numbers of images."""
    processes = Recorder()
    values = {"data": "digits", "scheme": "inside", "epochs": 1, "queries": 1, "batch_size": 64}
    settings = TrainSettings.from_values(values)
    Trainer.open(settings, processes).run()
    asked, *told = processes.told
    assert asked == settings.model_dump()
    assert len(told) > 5
    assert max(len(json.dumps(fact)) for fact in told) < 80
    pair = Recorder(size=2)
    shard_split(open_split("digits"), "clinic-{rank}", None, pair)
    (outline,) = pair.told
    assert set(outline) == {
        "images", "shape", "classes", "mean", "std", "value_range", "task",
    }  # fmt: skip
    assert len(json.dumps(outline)) < 350

"""A wrapped loader never mixes an item with another one that shows the same picture."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

from instahide import ImageTable, InstaHideError, Scheme, encode_loader
from instahide.encryption.batch_encoder import BatchEncoder
from instahide.encryption.exposure import Exposure
from instahide.errors import IntegrationError
from instahide.training.distributed.exposure import DistributedExposure

#: Items 0 to 4 show picture 0 under several labels, and so on.
IDS = np.repeat(np.arange(8), 5)
SIDE = 6


def picture(number: int) -> torch.Tensor:
    return torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(number))


IMAGES = torch.stack([picture(int(one)) for one in IDS])
LABELS = torch.arange(len(IDS)) % 4


class Flips(torch.utils.data.Dataset[Any]):
    """Items that a random transform turns over, by one kind of generator."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.own = np.random.RandomState(4)
        self.transform = [lambda: np.random.default_rng(3)]

    def __len__(self) -> int:
        return len(IDS)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        draws = {
            "python": random.random,
            "numpy": np.random.rand,
            "torch": lambda: torch.rand(()).item(),
            "own": self.own.rand,
            "none": lambda: 0.0,
        }
        image = IMAGES[index]
        return image + float(draws[self.kind]()) - 0.5, int(LABELS[index])


def shows_one(image: torch.Tensor) -> bool:
    """Whether |``image``| is one of the pictures."""
    found = [(image.abs() - picture(one).abs()).abs().max() for one in range(8)]
    return bool(min(found) < 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_tensors_and_subsets_of_them(workers: int) -> None:
    data = TensorDataset(IMAGES, LABELS)
    for chosen in (data, Subset(data, list(range(39, -1, -1)))):
        encoded = encode_loader(
            DataLoader(chosen, 10, shuffle=True, num_workers=workers), Scheme.inside(2), classes=4
        )
        for _ in range(3):
            for images, _ in encoded:
                assert not any(map(shows_one, images))
        counts = encoded.exposure.counts[:: 1 if chosen is data else -1].reshape(8, 5)
        assert (counts == counts[:, :1]).all()
        assert counts[:, 0].sum() == 3 * 40 * 2


@pytest.mark.parametrize("kind", ["none", "python", "numpy", "torch", "own"])
@pytest.mark.parametrize("workers", [0, 2])
def test_random_transforms_of_every_common_generator(kind: str, workers: int) -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    loader = DataLoader(Flips(kind), 10, shuffle=True, num_workers=workers)
    encoded = encode_loader(loader, Scheme.inside(2), classes=4)
    list(encoded)
    counts = encoded.exposure.counts.reshape(8, 5)
    assert (counts == counts[:, :1]).all(), "rows of one picture share a count"
    assert counts[:, 0].sum() == 80


def test_the_scan_leaves_the_generators_as_they_were() -> None:
    def order(wrapped: bool) -> list[Any]:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        loader: Any = DataLoader(Flips("none"), 10, shuffle=True)
        batches = encode_loader(loader, Scheme.inside(1, c1=1.0), classes=4) if wrapped else loader
        labels = [labels.argmax(1) if wrapped else labels for _, labels in batches]
        return [torch.cat(labels).tolist(), random.random(), np.random.rand()]  # noqa: S311

    assert order(True) == order(False)


def test_items_that_change_by_themselves_are_said() -> None:
    fetches = count()

    class Unknown(Flips):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return IMAGES[index] + next(fetches) / 1000, int(LABELS[index])

    encoded = encode_loader(DataLoader(Unknown("none"), 10), Scheme.inside(2), classes=4)
    with pytest.warns(UserWarning, match="change from one fetch to the next"):
        list(encoded)


def test_a_public_image_that_is_private_as_well_is_kept_out_of_its_mixes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 1, SIDE, SIDE), np.uint8)
    values = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25
    loader = DataLoader(TensorDataset(values, torch.arange(6) % 2), 6)
    public = ImageTable.from_arrays(pixels[:4])
    encoded = encode_loader(
        loader, Scheme.cross(3, c1=1.0), public=public, classes=2, mean=[0.5], std=[0.25]
    )
    for _ in range(50):
        list(encoded)
    with pytest.raises(InstaHideError, match=r"show 2, of which 2 are private"):
        list(
            encode_loader(
                loader, Scheme.cross(4), public=public.subset(slice(0, 2)), classes=2,
                mean=[0.5], std=[0.25],
            )
        )  # fmt: skip


def test_too_few_pictures_are_refused() -> None:
    encoded = encode_loader(
        DataLoader(TensorDataset(IMAGES[:10], LABELS[:10]), 5), Scheme.inside(4), classes=4
    )
    with pytest.raises(InstaHideError, match="the 10 images have 2"):
        list(encoded)


def test_equal_images_that_nobody_told_of_are_refused() -> None:
    encoder = BatchEncoder(Scheme.inside(2), Exposure(4))
    images = np.stack([picture(one).numpy() for one in (0, 0, 0, 0)])
    plan = encoder.draw(np.arange(4), np.arange(4))
    with pytest.raises(InstaHideError, match="Two images of a mix are equal"):
        encoder.encode(plan, images, np.arange(4) % 2, 2)
    blank = np.zeros_like(images)
    plan = encoder.draw(np.arange(4), np.arange(4))
    assert encoder.encode(plan, blank, np.arange(4) % 2, 2).images.abs().max() == 0


def test_processes_tell_each_other_what_they_saw() -> None:
    # Two processes, one after the other: each answer is the sum of both.
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    barrier, brought = Barrier(2), [np.empty(0)] * 2

    def total(rank: int) -> Any:
        def summed(values: NDArray[np.int64]) -> NDArray[np.int64]:
            brought[rank] = values
            barrier.wait(30)
            found = brought[0] + brought[1]
            barrier.wait(30)
            return found

        return summed

    hashes = np.array([[1, 2], [3, 4], [1, 2], [2**64 - 1, 7], [3, 4], [2**64 - 1, 7]], np.uint64)

    def run(rank: int) -> list[int]:
        exposure = DistributedExposure(6, total(rank), limit=5)
        mine = hashes.copy()
        mine[[4, 5] if rank == 0 else [0, 1]] = 0
        exposure.identify(mine)
        exposure.begin_epoch(np.array([0, 1, 2]) if rank == 0 else np.array([3, 4, 5]))
        rows = np.array([[0, 1]]) if rank == 0 else np.array([[4, 5]])
        assert exposure.record(rows, np.full((1, 2), 0.5, np.float32)) == 1
        exposure.settle()
        counts = exposure.counts.tolist()
        again = DistributedExposure(6, total(rank))
        again.raise_to(exposure.by_picture)
        again.identify(mine)
        assert again.counts.tolist() == counts
        return counts

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [[1, 2, 1, 1, 2, 1]] * 2


class ByEpoch(torch.utils.data.Dataset[Any]):
    """Each item is fetched under an epoch: as it is, or as another picture or rendition."""

    def __init__(self, kind: str) -> None:
        self.kind, self.fetched = kind, 0
        self.epoch = 0

    def __len__(self) -> int:
        return len(PICTURES)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.fetched += 1
        if self.kind == "order":
            index = (index + self.epoch) % len(PICTURES)
        draws = {
            "seeded": float(self.epoch),
            "random": torch.rand(()).item(),
            "unknown": next(TICKS) % 7,
        }
        return PICTURES[index] + draws.get(self.kind, 0.0) / 10, index


PICTURES = torch.stack([picture(one) for one in range(20)])
TICKS = count()


@pytest.mark.parametrize("wrapped", ["alone", "subset", "concatenated"])
@pytest.mark.parametrize("by", ["loader", "user"])
def test_items_that_are_others_after_set_epoch_are_refused(by: str, wrapped: str) -> None:
    dataset = ByEpoch("order")
    whole: Any = dataset
    if wrapped == "subset":
        whole = Subset(dataset, list(range(20)))
    elif wrapped == "concatenated":
        whole = torch.utils.data.ConcatDataset([dataset])
    loader = encode_loader(DataLoader(whole, 5), Scheme.inside(2), classes=20)
    list(loader)
    list(loader)
    counts = loader.exposure.counts.copy()
    shown = loader.dataset if by == "loader" and wrapped == "alone" else dataset
    shown.set_epoch(3)
    with pytest.raises(IntegrationError, match=r"set_epoch.*not the same images") as caught:
        next(iter(loader))
    assert "sampler" in caught.value.remedy
    assert loader.exposure.counts.tolist() == counts.tolist()
    shown.set_epoch(0)
    list(loader)
    assert loader.exposure.counts.sum() == 3 * 2 * 20


def test_items_of_another_epoch_are_compared_where_others_are_sampled() -> None:
    """The first half becomes the second: no number is used twice."""
    dataset, chosen = ByEpoch("order"), list(range(10))
    loader = encode_loader(DataLoader(dataset, 5, sampler=chosen), Scheme.inside(2), classes=20)
    list(loader)
    dataset.set_epoch(10)
    chosen[:] = range(10, 20)
    with pytest.raises(IntegrationError, match="not the same images"):
        next(iter(loader))


@pytest.mark.parametrize("kind", ["none", "random"])
def test_items_that_set_epoch_leaves_in_place_are_encrypted(kind: str) -> None:
    dataset = ByEpoch(kind)
    loader = encode_loader(DataLoader(dataset, 5), Scheme.inside(2), classes=20)
    for epoch in range(3):
        loader.dataset.set_epoch(epoch)
        list(loader)
    assert loader.exposure.counts.sum() == 3 * 2 * 20


@pytest.mark.filterwarnings("ignore:The items of the data set change")
def test_items_of_unknown_randomness_are_refused_with_set_epoch() -> None:
    for kind, problem in (("unknown", "it is unknown whether"), ("seeded", "not the same images")):
        dataset = ByEpoch(kind)
        loader = encode_loader(DataLoader(dataset, 5), Scheme.inside(2), classes=20)
        list(loader)
        dataset.set_epoch(1)
        with pytest.raises(IntegrationError, match=problem):
            next(iter(loader))


def test_the_set_epoch_of_a_sampler_scans_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ByEpoch("none")
    monkeypatch.delattr(ByEpoch, "set_epoch")
    sampler = DistributedSampler(dataset, num_replicas=1, rank=0)
    loader = encode_loader(DataLoader(dataset, 5, sampler=sampler), Scheme.inside(2), classes=20)
    fetched = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        list(loader)
        fetched.append(dataset.fetched)
    # Only what the mixes need; partners of a batch may be in it.
    assert fetched[2] - fetched[1] <= 2 * 20 < fetched[0]

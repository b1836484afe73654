"""Accounts of the ledger for data sets of the user's own, over loaders, processes and runs."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from instahide import (
    Encoder,
    ImageDataset,
    ImageTable,
    InstaHideError,
    Scheme,
    encode_loader,
)
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.privacy import mu_squared_rate
from instahide.errors import ExposureLimitError

COUNT = 12
MEAN, STD = (0.5,), (0.25,)
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 6, 6), np.uint8)
LABELS = np.arange(COUNT) % 3
RUNNER = Path(__file__).parent / "wrapped_run.py"


def floats() -> torch.Tensor:
    return torch.from_numpy((PIXELS.astype(np.float32) / 255 - MEAN[0]) / STD[0])


class Named(Dataset[Any]):
    """Items with the image under a name of its own, two levels down."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"meta": {"finding": int(LABELS[index])}, "scan": {"values": floats()[index]}}


class Jittered(Dataset[Any]):
    """Images that a random transform moves anew each time."""

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.fetched.append(index)
        return floats()[index].roll(int(torch.randint(0, 6, ())), -1), int(LABELS[index])


class Transform:
    """As torchvision's `Normalize` in a data set."""

    def __init__(self) -> None:
        self.mean, self.std = MEAN, STD

    def __call__(self, image: Any) -> Any:
        return image


def loader(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=4, **options)


def plain() -> TensorDataset:
    return TensorDataset(floats(), torch.from_numpy(LABELS))


def run(dataset: Any, account: Any, k: int = 2, **options: Any) -> None:
    list(encode_loader(loader(dataset), Scheme.inside(k), exposure=account, classes=3, **options))


def test_a_wrapped_loader_counts_over_runs(path: Path) -> None:
    for number in range(1, 4):
        with Ledger.open(path) as ledger:
            account = ledger.account(plain(), limit=100)
            run(plain(), account)
            assert account.counts.sum() == number * 2 * COUNT
            assert account.counts.min() >= number


def test_a_limit_ends_the_epoch_whoever_came_to_it(path: Path) -> None:
    with Ledger.open(path) as ledger:
        run(plain(), ledger.account(plain(), limit=10))
    with Ledger.open(path) as ledger:
        account = ledger.account(plain(), limit=10)
        # Ten encodings of an image are made by ten epochs in which it is in no other mix. The first
        # run alone comes to ten in fewer than one case in a billion.
        with pytest.raises(ExposureLimitError):
            [run(plain(), account) for _ in range(10)]
        assert account.counts.max() <= 10


@pytest.mark.parametrize(
    ("dataset", "image", "label"),
    [
        (plain, None, None),
        (Named, ("scan", "values"), ("meta", "finding")),
        (lambda: Subset(plain(), list(range(COUNT))), None, None),
        (lambda: [(image, int(label)) for image, label in plain()], None, None),
    ],
    ids=["tensors", "mapping", "subset", "list"],
)
def test_whatever_holds_the_images_it_counts_the_same_ones(
    path: Path, dataset: Callable[[], Any], image: Any, label: Any
) -> None:
    table = ImageTable.from_arrays(PIXELS, LABELS)
    with Ledger.open(path) as ledger:
        first = ledger.account(plain())
        first.record(np.array([[0, 1]]), np.full((1, 2), 0.5, np.float32))
        account = ledger.account(dataset(), image=image)
        assert account.counts.tolist() == [1, 1] + [0] * (COUNT - 2)
        run(dataset(), account, fields=(image, label))
        assert first.counts.tolist() == account.counts.tolist()
        # Not known from which pixels these floats come: the table counts for itself.
        assert ledger.account(table).counts.sum() == 0
        # And with what they were normalized by, it does not.
        known = ledger.account(dataset(), image=image, mean=MEAN, std=STD)
        assert ledger.account(table).counts.tolist() == known.counts.tolist()
        assert known.counts.tolist() == account.counts.tolist()


def test_tables_and_data_sets_of_the_same_pixels_share_their_counts(path: Path) -> None:
    table = ImageTable.from_arrays(PIXELS, LABELS)
    eight_bit = [(pixels, int(label)) for pixels, label in zip(PIXELS, LABELS, strict=True)]
    with Ledger.open(path) as ledger:
        ledger.account(table).record(np.array([[0, 1]]), np.full((1, 2), 0.5, np.float32))
        for images in (eight_bit, ImageDataset(eight_bit)):
            assert ledger.account(images).counts.tolist() == [1, 1] + [0] * (COUNT - 2)
        account = ledger.account(plain(), mean=MEAN, std=STD)
        assert account.counts.tolist() == [1, 1] + [0] * (COUNT - 2)


def test_random_transforms_do_the_same_to_an_image_in_every_run(path: Path) -> None:
    for number in range(3):
        torch.manual_seed(number)
        state = torch.get_rng_state()
        with Ledger.open(path) as ledger:
            dataset = Jittered()
            account = ledger.account(dataset)
            assert account.counts.sum() == 2 * COUNT * number
            assert torch.equal(state, torch.get_rng_state())
            run(dataset, account)
    # The advice in the documentation: a data set as it is before its random transforms.
    with Ledger.open(path) as ledger:
        account = ledger.account(plain())
        run(Jittered(), account)
        assert account.counts.sum() == 2 * COUNT


def test_duplicates_in_a_data_set_share_a_count(path: Path) -> None:
    twice = Subset(plain(), [*range(COUNT), *range(COUNT)])
    with Ledger.open(path) as ledger:
        account = ledger.account(twice)
        run(twice, account)
        assert account.counts[:COUNT].tolist() == account.counts[COUNT:].tolist()
        assert account.counts[:COUNT].sum() == 2 * 2 * COUNT


def test_a_pickled_account_counts_on(path: Path) -> None:
    with Ledger.open(path) as ledger:
        account = ledger.account(plain(), limit=50)
        copies = [pickle.loads(pickle.dumps(account)) for _ in range(2)]  # noqa: S301
        for copy in (account, *copies):
            run(plain(), copy)
        assert account.counts.sum() == 3 * 2 * COUNT
        for copy in copies:
            copy._file.close()


@pytest.mark.slow
def test_processes_count_together(path: Path) -> None:
    command = [sys.executable, str(RUNNER), str(path), "3"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = sum(int(process.communicate()[0]) for process in runs)
    assert [process.returncode for process in runs] == [0, 0]
    with Ledger.open(path) as ledger:
        account = ledger.account(plain())
        assert account.counts.sum() == 2 * made == 2 * 2 * 3 * COUNT


# What noise guarantees.


def test_a_guarantee_needs_a_known_normalization(path: Path) -> None:
    scheme = Scheme.inside(2, noise=50.0)
    with Ledger.open(path) as ledger:
        unknown = ledger.account(plain(), scheme=scheme)
        assert unknown._rate == math.inf
        known = ledger.account(plain(), scheme=scheme, mean=MEAN, std=STD)
        assert known._rate == mu_squared_rate(scheme, (1, 6, 6), STD)
        dataset = plain()
        dataset.transform = Transform()  # type: ignore[attr-defined]
        # Not torchvision's own: what it does to values is not known.
        assert ledger.account(dataset, scheme=scheme)._rate >= known._rate


@pytest.mark.parametrize(
    ("counted", "used"),
    [(50.0, 5.0), (50.0, 0.0), (50.0, 49.9)],
)
def test_less_noise_than_is_counted_is_refused(path: Path, counted: float, used: float) -> None:
    table = replace(ImageTable.from_arrays(PIXELS, LABELS), mean=MEAN, std=STD)
    with Ledger.open(path) as ledger:
        account = ledger.account(table, scheme=Scheme.inside(2, noise=counted))
        with pytest.raises(InstaHideError, match="noise"):
            Encoder(Scheme.inside(2, noise=used), table, exposure=account)
        account = ledger.account(
            plain(), scheme=Scheme.inside(2, noise=counted), mean=MEAN, std=STD
        )
        encoded = encode_loader(
            loader(plain()), Scheme.inside(2, noise=used), exposure=account, mean=MEAN, std=STD,
            classes=3,
        )  # fmt: skip
        with pytest.raises(InstaHideError, match="noise"):
            next(iter(encoded))
        # More noise than is counted does no harm.
        Encoder(Scheme.inside(2, noise=counted + 1), table, exposure=account)


def test_another_normalization_than_is_counted_is_refused(path: Path) -> None:
    table = replace(ImageTable.from_arrays(PIXELS, LABELS), mean=MEAN, std=STD)
    scheme = Scheme.inside(2, noise=50.0)
    with Ledger.open(path) as ledger:
        account = ledger.account(table, scheme=scheme)
        sharper = replace(table, std=(0.2,))
        with pytest.raises(InstaHideError, match="noise"):
            Encoder(scheme, sharper, exposure=account)


# What has no account.


@pytest.mark.parametrize("what", [lambda: iter([]), lambda: loader(plain()), lambda: 5])
def test_what_gives_no_items_by_number_is_refused(path: Path, what: Callable[[], Any]) -> None:
    with Ledger.open(path) as ledger, pytest.raises(InstaHideError, match="by number"):
        ledger.account(what())


@pytest.mark.parametrize("image", ["picture", ("scan", "other"), 7])
def test_an_image_that_is_not_there_is_refused(path: Path, image: Any) -> None:
    with Ledger.open(path) as ledger:
        for named in ({"image": image}, {}):
            with pytest.raises(InstaHideError, match="image"):
                ledger.account(Named(), **named)

"""A wrapped loader: the user's own batches, encrypted, and nothing else changed."""

from __future__ import annotations

import threading
import warnings
from collections import namedtuple
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset, default_collate

from instahide import Exposure, Scheme, encode_loader, open_images
from instahide.encodings.ledger.ledger import Ledger
from instahide.errors import ExposureLimitError
from tests.integrations.dataloader.wrapped_loaders import (
    ALONE,
    COUNT,
    HALF,
    INSIDE,
    ITEMS,
    Opening,
    loader,
    mixed,
    mixing,
    open_in_worker,
    order,
)
from tests.waiting import LIMIT


def test_a_plain_scheme_changes_nothing() -> None:
    for ours, theirs in zip(encode_loader(loader(), Scheme.plain()), loader(), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1].argmax(1), theirs[1])


Named = namedtuple("Named", ["pixels", "target", "names"])


@dataclass
class Record:
    """A batch as a class of somebody's own."""

    inputs: dict[str, Tensor]
    target: Tensor
    names: list[str]


def as_tuple(items: list[Any]) -> Any:
    return (*default_collate(items), names(items))


def as_named(items: list[Any]) -> Any:
    return Named(*as_tuple(items))


def as_dict(items: list[Any]) -> Any:
    images, numbers, names = as_tuple(items)
    return {"names": names, "y": numbers, "inputs": [{"x": images}]}


def as_record(items: list[Any]) -> Any:
    images, numbers, names = as_tuple(items)
    return Record({"x": images}, numbers, names)


def as_arrays(items: list[Any]) -> Any:
    images, numbers, names = as_tuple(items)
    return images.numpy(), numbers.numpy(), names


def names(items: list[Any]) -> list[str]:
    return [f"item {number}" for _, number in items]


@pytest.mark.parametrize(
    ("collate", "get"),
    [
        (as_tuple, lambda batch: batch),
        (as_named, lambda batch: (batch.pixels, batch.target, batch.names)),
        (as_dict, lambda batch: (batch["inputs"][0]["x"], batch["y"], batch["names"])),
        (as_record, lambda batch: (batch.inputs["x"], batch.target, batch.names)),
        (as_arrays, lambda batch: tuple(map(torch.as_tensor, batch[:2])) + batch[2:]),
    ],
)
def test_batches_keep_their_make(collate: Any, get: Any) -> None:
    encoded = list(encode_loader(loader(12, collate_fn=collate), INSIDE))
    for ours, theirs in zip(encoded, loader(12, collate_fn=collate), strict=True):
        assert type(ours) is type(theirs)
        assert isinstance(ours, tuple) is isinstance(theirs, tuple)
        (images, labels, told), (plain, numbers, expected) = get(ours), get(theirs)
        assert images.shape == plain.shape
        assert labels.shape == (len(plain), COUNT)
        # All else is of the batch's own images, and of no partner.
        assert told == expected
        assert (labels[range(len(numbers)), numbers] > 0).all()
    assert isinstance(
        encoded[0][0] if collate is as_arrays else get(encoded[0])[0],
        np.ndarray if collate is as_arrays else Tensor,
    )


def test_soft_labels_of_a_collate_are_mixed() -> None:
    def smoothed(items: list[Any]) -> Any:
        images, numbers = default_collate(items)
        return images, 0.9 * torch.eye(COUNT)[numbers] + 0.1 / COUNT

    for _, labels in encode_loader(loader(collate_fn=smoothed), INSIDE):
        torch.testing.assert_close(labels.sum(1), torch.ones(len(labels)))
        least, most = labels.min(1).values, labels.max(1).values
        torch.testing.assert_close(least, torch.full((len(labels),), 0.1 / COUNT))
        assert (most < 0.9 * INSIDE.c1 + 0.1 / COUNT + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_encodings_have_the_type_of_the_images(dtype: torch.dtype) -> None:
    def cast(items: list[Any]) -> Any:
        images, numbers = default_collate(items)
        return images.to(dtype, memory_format=torch.channels_last), numbers

    for images, labels in encode_loader(loader(collate_fn=cast), INSIDE):
        assert images.dtype is dtype
        assert labels.dtype is torch.float32


def test_memory_is_pinned_where_there_is_a_gpu() -> None:
    with warnings.catch_warnings():
        # Where there is none, PyTorch says that it pins nothing.
        warnings.simplefilter("ignore", UserWarning)
        images, labels = next(iter(encode_loader(loader(pin_memory=True), INSIDE)))
    assert images.is_pinned() is labels.is_pinned() is torch.accelerator.is_available()


def test_data_sets_that_give_whole_batches() -> None:
    class Batched(type(ITEMS)):  # type: ignore[misc]
        def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
            return self.images[indices], torch.tensor(indices)

    batches = DataLoader(Batched(), 16, collate_fn=lambda batch: batch)
    assert order(encode_loader(batches, ALONE)) == [
        list(range(16)), list(range(16, 32)), list(range(32, 40))
    ]  # fmt: skip


def test_labels_are_what_cross_entropy_takes() -> None:
    model, loss = nn.Linear(64, COUNT), nn.CrossEntropyLoss()
    for images, labels in encode_loader(loader(), INSIDE):
        value = loss(model(images.flatten(1)), labels)
        value.backward()
        assert value.isfinite()


def test_workers_find_the_data_set_that_they_know() -> None:
    batches = DataLoader(Opening(), 20, num_workers=2, worker_init_fn=open_in_worker)  # type: ignore[arg-type, var-annotated]
    opened = [where for *_, told in encode_loader(batches, INSIDE) for where in told]
    assert opened == ["worker 0"] * 20 + ["worker 1"] * 20


def test_leaving_early_leaves_no_thread_behind() -> None:
    # A loader of another test may not be collected yet.
    others = mixing()
    encoded = encode_loader(loader(), INSIDE)
    assert len(list(islice(encoded, 2))) == 2
    assert mixing() <= others
    iterator = iter(encoded)
    next(iterator)
    assert mixing() - others
    del iterator
    assert mixing() <= others


def test_a_batch_is_mixed_while_the_one_before_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode_loader(loader(), INSIDE)
    finish, begun = encoded._encoder.encode, threading.Semaphore(0)

    def noting(*arguments: Any, **more: Any) -> Any:
        begun.release()
        return finish(*arguments, **more)

    monkeypatch.setattr(encoded._encoder, "encode", noting)
    iterator = iter(encoded)
    next(iterator)
    assert begun.acquire(timeout=LIMIT)
    assert begun.acquire(timeout=LIMIT), "the next one is made before it is asked for"
    assert not begun.acquire(timeout=0.2), "and no more than that"


def test_an_error_of_the_data_set_is_raised_as_it_is() -> None:
    class Broken(type(ITEMS)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            if index == 30:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    others = mixing()
    with pytest.raises(OSError, match="the disk is gone"):
        list(encode_loader(DataLoader(Broken(), 8), ALONE))
    assert mixing() <= others


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_limit_holds_for_every_item_and_ends_the_epoch(workers: int) -> None:
    exposure = Exposure(COUNT, limit=7)
    options = {"num_workers": workers, "sampler": SubsetRandomSampler(HALF)}
    encoded = encode_loader(loader(**options), INSIDE, exposure=exposure)
    assert encoded.exposure is exposure
    given: list[set[int]] = []
    batches = chain.from_iterable(encoded for _ in range(10))
    with pytest.raises(ExposureLimitError, match="above 7 encodings"):
        given.extend(mix for batch in batches for mix in mixed([batch]))
    counts = np.bincount([item for mix in given for item in mix], minlength=COUNT)
    assert (counts <= exposure.counts).all(), "what was seen was counted"
    assert exposure.counts.max() == 7
    # How many there are is chance, but for the first batch: one of its 8 images goes beyond 7 only
    # if all other mixes hold it as well, which happens in about one run in a million.
    assert len(given) >= 8


def test_a_ledger_counts_what_a_loader_encrypts(tmp_path: Path) -> None:
    table = open_images("digits").subset(slice(0, 40))
    items = TensorDataset(torch.from_numpy(table.normalized()), torch.from_numpy(table.labels))
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        account = ledger.account(table, limit=10)
        encoded = encode_loader(DataLoader(items, 16), INSIDE, classes=10, exposure=account)
        list(encoded)
        assert account.counts.sum() == 3 * 40
        assert ledger.totals(table).counts.sum() == 3 * 40


def test_the_users_loader_is_as_it_was() -> None:
    plain = loader(num_workers=1, persistent_workers=True, shuffle=True, timeout=LIMIT)
    before = dict(vars(plain))
    encoded = encode_loader(plain, INSIDE)
    list(encoded)
    assert vars(plain) == before, "no iterator of it was begun"
    assert encoded.unwrapped is plain
    for name in ("batch_size", "num_workers", "timeout", "generator", "multiprocessing_context"):
        assert getattr(encoded, name) is getattr(plain, name)
    assert not isinstance(encoded, DataLoader), "or frameworks would build it anew, without us"
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = encoded.no_such_thing

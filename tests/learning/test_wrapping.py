"""A wrapped loader: the user's own batches, encrypted, and nothing else changed."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import dataclass
from itertools import chain, combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from instahide import Exposure, InstaHideError, Scheme, encode_loader, open_images
from instahide.encodings.ledger import Ledger
from instahide.encryption.batches import BatchEncoder
from instahide.encryption.draws import OneTimeKeys
from instahide.encryption.draws import masks as drawn_masks
from instahide.encryption.exposure import ExposureLimitError
from instahide.encryption.kernels import reference
from instahide.encryption.keys import KeyStream
from instahide.learning.contents import Contents
from instahide.learning.wrapping import EncodingLoader
from tests.learning.wrapped import (
    ALONE,
    COUNT,
    ITEMS,
    SHAPE,
    Opening,
    loader,
    masks,
    mixed,
    open_in_worker,
    order,
)

INSIDE = Scheme.inside(3)
KEY = bytes(range(32))
HALF = list(range(0, COUNT, 2))
SECONDS = 60
ROOT = Path(__file__).resolve().parents[2]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def shard(rank: int, **more: Any) -> DistributedSampler[Any]:
    return DistributedSampler(ITEMS, num_replicas=2, rank=rank, **more)  # type: ignore[arg-type]


#: What each loader is made with, and the items that it gives in an epoch.
SAMPLERS: dict[str, tuple[Any, set[int]]] = {
    "sequential": (lambda: {}, set(range(COUNT))),
    "shuffled": (lambda: {"shuffle": True, "generator": seeded()}, set(range(COUNT))),
    "dropping": (lambda: {"batch_size": 12, "drop_last": True}, set(range(36))),
    "one by one": (lambda: {"batch_size": 1}, set(range(COUNT))),
    "subset": (lambda: {"sampler": SubsetRandomSampler(HALF, generator=seeded())}, set(HALF)),
    "repeating": (
        lambda: {"sampler": WeightedRandomSampler([1.0, 4.0] * 4, 50, generator=seeded())},
        set(range(8)),
    ),
    "longer": (
        lambda: {"sampler": RandomSampler(range(5), num_samples=23, generator=seeded())},
        set(range(5)),
    ),
    "shard": (lambda: {"sampler": shard(1, shuffle=False)}, set(range(1, COUNT, 2))),
    "batches": (
        lambda: {"batch_size": 1, "batch_sampler": [[3, 4], [5, 3, 9], [9]]},
        {3, 4, 5, 9},
    ),
    "tensors": (lambda: {"sampler": torch.tensor([4, 2, 9, 5])}, {2, 4, 5, 9}),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sampler_is_used_as_it_is(kind: str, workers: int) -> None:
    options, pool = SAMPLERS[kind]
    plain, ours = (loader(num_workers=workers, **options()) for _ in range(2))
    alone = encode_loader(ours, ALONE)
    # Twice: shuffles go on from where they were.
    for _ in range(2):
        expected = [labels.tolist() for _, labels in plain]
        assert order(alone) == expected
        assert len(alone) == len(expected)
    encoded = encode_loader(loader(num_workers=workers, **options()), INSIDE)
    mixes = mixed(encoded)
    assert {len(mix) for mix in mixes} == {3}, "no image twice, itself included"
    assert set().union(*mixes) <= pool, "partners are images of the same epoch"
    owned = list(chain.from_iterable(order(encode_loader(loader(**options()), ALONE))))
    assert all(own in mix for own, mix in zip(owned, mixes, strict=True))
    np.testing.assert_array_equal(
        encoded.exposure.counts,
        np.bincount([item for mix in mixes for item in mix], minlength=COUNT),
    )


def test_the_default_shuffle_is_what_it_would_have_been() -> None:
    orders = []
    for wrap in (False, True):
        torch.manual_seed(3)
        plain = loader(shuffle=True)
        batches = encode_loader(plain, ALONE) if wrap else plain
        orders.append(
            [order(batches) if wrap else [y.tolist() for _, y in batches] for _ in range(3)]
        )
    assert orders[0] == orders[1]


def test_shards_are_disjoint_complete_and_keep_to_themselves() -> None:
    samplers = [shard(rank, seed=5) for rank in range(2)]
    encoded = [encode_loader(loader(sampler=sampler), INSIDE) for sampler in samplers]
    seen = []
    for epoch in range(3):
        for each in encoded:
            each.sampler.set_epoch(epoch)
        items = [set().union(*mixed(each)) for each in encoded]
        shards = [set(sampler) for sampler in samplers]
        assert items == shards
        assert items[0] | items[1] == set(range(COUNT))
        assert not items[0] & items[1]
        seen.append(frozenset(items[0]))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("scheme", [INSIDE, Scheme.mixup(4)])
def test_batches_are_the_definition(scheme: Scheme) -> None:
    exposures = Exposure(COUNT), Exposure(COUNT)
    ours, twin = (
        BatchEncoder(scheme, exposure, keys=KeyStream(fixed_key=KEY)) for exposure in exposures
    )
    rows = [HALF[:16], HALF[16:], HALF[5:6]]
    contents = Contents(None, None, COUNT, mask=scheme.mask)
    encoded = EncodingLoader(loader(1, batch_sampler=rows), ours, contents)
    twin.next_epoch()
    ones, zeros = np.ones(1, np.float32), np.zeros(1, np.float32)
    for (images, labels), own in zip(encoded, rows, strict=True):
        plan = twin.plan(np.asarray(own), np.asarray(HALF))
        signs = drawn_masks(plan.block, len(own), SHAPE) if scheme.mask else None
        keys = OneTimeKeys(plan.chosen, plan.coefficients, signs, None)
        pixels = ITEMS.images.numpy()
        expected = reference.encode(pixels, pixels[:0], keys, scheme.private_k, ones, zeros)
        np.testing.assert_allclose(images, expected, atol=1e-5)
        soft = np.zeros((len(own), COUNT))
        np.put_along_axis(soft, plan.chosen, plan.coefficients, axis=1)
        np.testing.assert_allclose(labels, soft, atol=1e-6)
    np.testing.assert_array_equal(*(exposure.counts for exposure in exposures))


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


def all_differ(found: NDArray[np.bool]) -> bool:
    """Whether masks (n, 64) are as good as independent: no pair agrees in 60 places or more.

    By chance 1 pair in 10^13 does, and as many in 4 or fewer; there are some ten thousand.
    """
    agreeing = [(first == second).sum() for first, second in combinations(found, 2)]
    return max(agreeing) < 60 and min(agreeing) > 4


def test_every_epoch_and_every_loader_has_masks_of_its_own() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        encoded = encode_loader(loader(shuffle=True, num_workers=2), ALONE)
        found += [masks(encoded), masks(encoded)]
    assert np.concatenate(found).shape == (160, 64)
    assert all_differ(np.concatenate(found))
    # 10,240 fair coins: 6 deviations leave 2 errors in 10^9.
    assert abs(np.concatenate(found).mean() - 0.5) < 6 * 0.5 / 101


def send_masks(batches: Any, writer: Any) -> None:
    writer.send(masks(batches))


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_copy_in_another_process_has_masks_of_its_own(start: str) -> None:
    encoded = encode_loader(loader(), ALONE)
    found = [masks(encoded)]
    context: Any = multiprocessing.get_context(start)
    reader, writer = context.Pipe(duplex=False)
    processes = [context.Process(target=send_masks, args=(encoded, writer)) for _ in range(2)]
    for process in processes:
        process.start()
    found += [reader.recv() for _ in processes]
    for process in processes:
        process.join(SECONDS)
        assert process.exitcode == 0
    assert all_differ(np.concatenate([*found, masks(encoded)]))


def test_a_rank_has_a_key_domain_of_its_own(tmp_path: Path) -> None:
    assert encode_loader(loader(), ALONE)._encoder._keys.participant == ""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        encoded = encode_loader(loader(), ALONE)
        assert encoded._encoder._keys.participant == "rank-0"
        assert copy.deepcopy(encoded)._encoder._keys.participant == "rank-0"
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_and_restarts_have_masks_of_their_own() -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tests.learning.wrapped_rank",
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    found = []
    for _ in range(2):
        result = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        found += [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(rank) for rank in found] == [COUNT] * 4
    assert all_differ(np.concatenate(found))


def test_two_iterations_at_a_time_do_not_meet() -> None:
    encoded = encode_loader(loader(num_workers=1), ALONE)
    pairs = list(zip(encoded, encoded, strict=True))
    assert all_differ(np.concatenate([masks(part) for part in zip(*pairs, strict=True)]))


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_persistent_workers_serve_epoch_after_epoch(start: str) -> None:
    options = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": start}
    encoded = encode_loader(loader(**options), ALONE)
    found = [masks(encoded)]
    workers = list(encoded._fetching._iterator._workers)  # type: ignore[union-attr]
    # Left in the middle, with answers on their way.
    assert len(list(islice(encoded, 1))) == 1
    found.append(masks(encoded))
    assert list(encoded._fetching._iterator._workers) == workers  # type: ignore[union-attr]
    assert all_differ(np.concatenate(found))


def test_persistent_workers_do_not_serve_two_at_a_time() -> None:
    encoded = encode_loader(loader(num_workers=1, persistent_workers=True), ALONE)
    first = iter(encoded)
    next(first)
    iter(encoded)
    with pytest.raises(InstaHideError, match="serve one at a time"):
        list(first)


def test_answers_that_come_out_of_order_find_their_keys() -> None:
    encoded = encode_loader(loader(num_workers=2, in_order=False), INSIDE)
    # An image that was mixed by the keys of another batch would not be in its own labels.
    mixes = mixed(encoded)
    assert len(mixes) == COUNT
    assert {len(mix) for mix in mixes} == {3}
    assert encoded.exposure.counts.sum() == 3 * COUNT


def test_workers_find_the_data_set_that_they_know() -> None:
    batches = DataLoader(Opening(), 20, num_workers=2, worker_init_fn=open_in_worker)  # type: ignore[arg-type, var-annotated]
    opened = [where for *_, told in encode_loader(batches, INSIDE) for where in told]
    assert opened == ["worker 0"] * 20 + ["worker 1"] * 20


def mixing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "instahide-mixing" in thread.name]


def test_leaving_early_leaves_no_thread_behind() -> None:
    encoded = encode_loader(loader(), INSIDE)
    assert len(list(islice(encoded, 2))) == 2
    assert mixing() == []
    iterator = iter(encoded)
    next(iterator)
    assert mixing() != []
    del iterator
    assert mixing() == []


def test_a_batch_is_mixed_while_the_one_before_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode_loader(loader(), INSIDE)
    finish, begun = encoded._encoder.finish, threading.Semaphore(0)

    def noting(*arguments: Any, **more: Any) -> Any:
        begun.release()
        return finish(*arguments, **more)

    monkeypatch.setattr(encoded._encoder, "finish", noting)
    iterator = iter(encoded)
    next(iterator)
    assert begun.acquire(timeout=10)
    assert begun.acquire(timeout=10), "the next one is made before it is asked for"
    assert not begun.acquire(timeout=0.2), "and no more than that"


def test_an_error_of_the_data_set_is_raised_as_it_is() -> None:
    class Broken(type(ITEMS)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            if index == 30:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="the disk is gone"):
        list(encode_loader(DataLoader(Broken(), 8), ALONE))
    assert mixing() == []


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
    assert len(given) >= 20, "the epochs before are whole"


def test_a_ledger_counts_what_a_loader_encrypts(tmp_path: Path) -> None:
    table = open_images("digits").subset(slice(0, 40))
    items = TensorDataset(torch.from_numpy(table.normalised()), torch.from_numpy(table.labels))
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        account = ledger.account(table, limit=10)
        encoded = encode_loader(DataLoader(items, 16), INSIDE, classes=10, exposure=account)
        list(encoded)
        assert account.counts.sum() == 3 * 40
        assert ledger.totals(table).counts.sum() == 3 * 40


def test_the_users_loader_is_as_it_was() -> None:
    plain = loader(num_workers=1, persistent_workers=True, sampler=shard(0), timeout=30)
    before = dict(vars(plain))
    encoded = encode_loader(plain, INSIDE)
    list(encoded)
    assert vars(plain) == before, "no iterator of it was begun"
    assert encoded.unwrapped is plain
    for name in ("dataset", "sampler", "batch_size", "batch_sampler", "num_workers", "timeout"):
        assert getattr(encoded, name) is getattr(plain, name)
    assert not isinstance(encoded, DataLoader), "or frameworks would build it anew, without us"
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = encoded.no_such_thing


def test_nothing_secret_is_shown_or_sent() -> None:
    encoded = encode_loader(loader(), INSIDE)
    iterator = iter(encoded)
    next(iterator)
    stream = encoded._encoder._keys
    secrets = [stream._root, stream._cipher_key]
    parts = encoded._fetching
    # What PyTorch sends to a worker, and what somebody may send anywhere.
    sent = [parts.dataset, parts.collate_fn, parts.worker_init_fn, encoded]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        for thing in sent:
            written = pickle.dumps(thing, protocol)
            assert not any(secret in written for secret in secrets)
            assert b"instahide.encryption.keys" not in written
    shown = f"{encoded} {encoded!r} {vars(encoded)}"
    assert not any(repr(secret)[2:-1] in shown for secret in secrets)
    for copied in (copy.copy(encoded), copy.deepcopy(encoded)):
        assert len(mixed(copied)) == COUNT


def refused(batches: Any, scheme: Scheme = INSIDE, **more: Any) -> None:
    list(encode_loader(batches, scheme, **more))


class Endless:
    """Gives item 0 for ever."""

    def __iter__(self) -> Any:
        while True:
            yield 0


class Lying(Endless):
    """And says that it does not."""

    def __len__(self) -> int:
        return 20


class Sampled(list[Any]):
    """A batch sampler of anything."""


class OwnWay(DataLoader[Any]):
    """Iterates as nobody knows."""

    def __iter__(self) -> Any:
        return iter([])


class Streaming(torch.utils.data.IterableDataset[Any]):
    """No numbers."""

    def __iter__(self) -> Any:
        return iter(())


class Unsized:
    """Items by number, nobody knows how many."""

    def __getitem__(self, index: int) -> Any:
        return ITEMS[index]


def changed(change: Any) -> DataLoader[Any]:
    """A loader whose collate does something to images (n, C, H, W) and numbers (n,)."""
    return loader(collate_fn=lambda items: change(*default_collate(items)))


def spoilt(images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Item 17 is damaged, wherever it stands."""
    return torch.where((numbers == 17)[:, None, None, None], torch.inf, images), numbers


LOADERS: list[tuple[Any, str]] = [
    (lambda: encode_loader(loader(), INSIDE), r"encrypts already\. .*`loader.unwrapped`"),
    (lambda: [1, 2], "A list is no PyTorch DataLoader"),
    (lambda: OwnWay(ITEMS), "A OwnWay iterates in a way of its own"),  # type: ignore[arg-type]
    (lambda: DataLoader(Streaming()), "in a stream, not by number"),
    (lambda: loader(None), "batch_size=None"),
    (lambda: loader(sampler=Endless()), "The sampler has no length"),
    (lambda: loader(1, batch_sampler=Endless()), "The sampler has no length"),
    (lambda: loader(sampler=Lying()), "more batches than the 3 that"),
    (lambda: DataLoader(Unsized(), 2, sampler=HALF), "The data set has no length"),  # type: ignore[arg-type]
    (lambda: loader(1, batch_sampler=Sampled([["a"]])), "indices that are no whole numbers"),
    (lambda: loader(1, batch_sampler=Sampled([[0, -1]])), "out of range: there are 40 items"),
    (lambda: loader(1, batch_sampler=Sampled([[40]])), "out of range: there are 40 items"),
    (lambda: loader(sampler=[5, 9, 5]), "needs as many; the sampler gives 2"),
]


@pytest.mark.parametrize(("make", "message"), LOADERS)
def test_loaders_that_cannot_be_wrapped_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InstaHideError, match=message):
        refused(make())


CONTENTS: list[tuple[Any, dict[str, Any], str]] = [
    (lambda x, y: ((x * 255).byte(), y), {}, "Normalise images to floats"),
    (lambda x, y: ((x * 255).byte(), y), {"image": 0}, "batch of 8 are uint8 of shape"),
    (lambda x, y: (x.abs(), y), {}, r"of one sign, .* mask would hide nothing.* Normalize"),
    (lambda x, y: (-x.abs(), y), {}, "of one sign"),
    (spoilt, {}, "The image of item 17 has values that are NaN or infinite"),
    (lambda x, y: (x[1:], y), {"image": 0}, "images of a batch of 8 are float32 of shape"),
    (lambda x, y: (x, y[1:]), {"label": 1}, "labels of a batch of 8 are int64 of shape"),
    (lambda x, y: (x, y.float()), {"label": 1}, "labels of a batch of 8 are float32"),
    (lambda x, y: (x, y), {"label": 2}, r"no field \[2\]"),
    (lambda x, y: (x, y.tolist()), {"label": 1}, "is a list, not a tensor"),
    (lambda x, y: (x, y), {"classes": 10}, "Labels run from .*, but there are 10 classes"),
    (lambda x, y: (x, y - 1), {}, "Labels run from -1 to"),
    (lambda x, y: (x, torch.eye(50)[y]), {}, "50 columns, but there are 40 classes"),
    (lambda x, y: (x[..., : 4 + y[0] % 4], y), {}, "one batch are .*, those of their partners"),
    (lambda x, y: (x.to("meta"), y), {}, "The batch is on meta"),
]


@pytest.mark.parametrize(("change", "options", "message"), CONTENTS)
def test_batches_that_cannot_be_mixed_are_refused(
    change: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InstaHideError, match=message):
        refused(changed(change), **options)
    assert mixing() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exposure": Exposure(7)}, "counts 7 images, but the data set has 40 items"),
        ({"mean": [0.5]}, "Of mean and std only one is given"),
        ({"scheme": Scheme.cross(4)}, "2 public images, but there are none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InstaHideError, match=message):
        refused(loader(), **options)


def test_classes_that_nobody_knows_are_asked_for() -> None:
    pairs = [(ITEMS.images[number], number % 3) for number in range(COUNT)]
    with pytest.raises(InstaHideError, match="number or their names as classes="):
        refused(DataLoader(pairs, 8))  # type: ignore[arg-type]
    for classes in (3, ("a", "b", "c")):
        for _, labels in encode_loader(DataLoader(pairs, 8), INSIDE, classes=classes):  # type: ignore[arg-type]
            assert labels.shape[1] == 3


def test_a_part_of_a_data_set_is_known_by_the_whole() -> None:
    part = Subset(ITEMS, HALF)  # type: ignore[arg-type, var-annotated]
    encoded = encode_loader(DataLoader(part, 8), INSIDE)
    assert set().union(*mixed(encoded)) == set(HALF)
    assert encoded.exposure.images == 20

"""Every sampler is used as it is: own images, partners and order are those of its epoch."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from instahide import Exposure, Scheme, encode_loader
from instahide.encryption.batch_encoder import BatchEncoder
from instahide.encryption.kernels import reference
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.sampling.sampler import masks as drawn_masks
from instahide.integrations.dataloader.batch_contents import BatchReader, ValueCheck
from instahide.integrations.dataloader.wrap import EncodingLoader
from tests.integrations.dataloader.wrapped_loaders import (
    ALONE,
    COUNT,
    HALF,
    INSIDE,
    ITEMS,
    SHAPE,
    loader,
    mixed,
    order,
)

KEY = bytes(range(32))


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


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [INSIDE, Scheme.mixup(4)])
def test_batches_are_the_definition(scheme: Scheme) -> None:
    exposures = Exposure(COUNT), Exposure(COUNT)
    ours, twin = (
        BatchEncoder(scheme, exposure, keys=KeyStream(fixed_key=KEY)) for exposure in exposures
    )
    rows = [HALF[:16], HALF[16:], HALF[5:6]]
    contents = BatchReader(None, None, COUNT, ValueCheck(None, None, mask=scheme.mask))
    encoded = EncodingLoader(loader(1, batch_sampler=rows), ours, contents)
    twin.next_epoch()
    ones, zeros = np.ones(1, np.float32), np.zeros(1, np.float32)
    for (images, labels), own in zip(encoded, rows, strict=True):
        plan = twin.draw(np.asarray(own), np.asarray(HALF))
        signs = drawn_masks(plan.block, len(own), SHAPE) if scheme.mask else None
        keys = OneTimeKeys(plan.partners, plan.coefficients, signs, None)
        pixels = ITEMS.images.numpy()
        expected = reference.encode(pixels, pixels[:0], keys, scheme.private_k, ones, zeros)
        np.testing.assert_allclose(images, expected, atol=1e-5)
        soft = np.zeros((len(own), COUNT))
        np.put_along_axis(soft, plan.partners, plan.coefficients, axis=1)
        np.testing.assert_allclose(labels, soft, atol=1e-6)
    np.testing.assert_array_equal(*(exposure.counts for exposure in exposures))


def test_a_part_of_a_data_set_is_known_by_the_whole() -> None:
    part = Subset(ITEMS, HALF)  # type: ignore[arg-type, var-annotated]
    encoded = encode_loader(DataLoader(part, 8), INSIDE)
    assert set().union(*mixed(encoded)) == set(HALF)
    assert encoded.exposure.images == 20

"""Loaders of other libraries, and loaders built from the parts of a wrapped one."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from instahide import InstaHideError
from tests.integrations.matrix import (
    BATCH,
    COUNT,
    PIXELS,
    SCHEME,
    SHAPE,
    Items,
    Records,
    check,
    encoded,
    plain,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def rebuilt(loader: Any, **more: Any) -> DataLoader[Any]:
    options = {"batch_size": BATCH, "collate_fn": loader.collate_fn, **more}
    return DataLoader(loader.dataset, **options)


REBUILT: dict[str, Any] = {
    "a `DataLoader` of its `dataset`": lambda e: DataLoader(e.dataset, BATCH),
    "... and `collate_fn`": rebuilt,
    "... and `sampler`": lambda e: rebuilt(e, sampler=e.sampler),
    "... and `batch_sampler`": lambda e: rebuilt(e, batch_size=1, batch_sampler=e.batch_sampler),
    "... and another collate": lambda e: rebuilt(e, collate_fn=default_collate),
    "a `Subset` of its `dataset`": lambda e: DataLoader(Subset(e.dataset, [1, 2]), 2),
    "its `dataset` after another": lambda e: DataLoader(ConcatDataset([[], e.dataset]), 2),
    "`copy.copy`": copy.copy,
    "`copy.deepcopy`": copy.deepcopy,
    "`pickle`": lambda e: pickle.loads(pickle.dumps(e)),  # noqa: S301
}


@pytest.mark.parametrize("order", REBUILT)
def test_what_is_made_of_a_wrapped_loader(order: str) -> None:
    check("PyTorch", order, lambda: REBUILT[order](encoded()))


def test_workers_of_a_rebuilt_loader_refuse_as_well() -> None:
    with pytest.raises(Exception, match="encode_loader"):
        next(iter(rebuilt(encoded(), num_workers=1)))


def test_stateful_data_loader() -> None:
    data = pytest.importorskip("torchdata.stateful_dataloader")
    check(
        "torchdata `StatefulDataLoader`",
        "given to `encode_loader`",
        lambda: encoded(data.StatefulDataLoader(plain().dataset, BATCH)),
        (InstaHideError, "iterates in a way of its own"),
    )
    check(
        "torchdata `StatefulDataLoader`",
        "built from a wrapped loader",
        lambda: data.StatefulDataLoader(encoded().dataset, BATCH),
    )


def test_monai() -> None:
    data = pytest.importorskip("monai.data")
    for order, make in {
        "`DataLoader` given to `encode_loader`": lambda: data.DataLoader(
            Records(), batch_size=BATCH, shuffle=True
        ),
        "... of a `monai.data.Dataset` with transforms": dictionaries,
        "`ThreadDataLoader` given to `encode_loader`": lambda: data.ThreadDataLoader(
            Records(), batch_size=BATCH
        ),
    }.items():
        refusal = (InstaHideError, "iterates in a way of its own")
        check("MONAI", order, lambda make=make: encoded(make(), classes=COUNT), refusal)


def dictionaries() -> Any:
    """Dictionaries with MONAI's tensors, which carry metadata."""
    from monai.data import DataLoader as MonaiLoader
    from monai.data import Dataset as MonaiDataset
    from monai.data import MetaTensor
    from monai.transforms import Compose, EnsureTyped, Lambdad

    records = [{"image": MetaTensor(Records()[i]["image"]), "label": i} for i in range(COUNT)]
    steps = Compose([EnsureTyped("image"), Lambdad("image", lambda image: image * 1.0)])
    return MonaiLoader(MonaiDataset(records, steps), batch_size=BATCH)


@pytest.mark.parametrize("samples", [1, 3])
def test_monai_items_that_are_lists_of_samples(samples: int) -> None:
    """As its random crops give them: `list_data_collate` makes a batch of all samples."""
    data = pytest.importorskip("monai.data")
    from monai.transforms import RandSpatialCropSamplesd

    crops = RandSpatialCropSamplesd(
        "image", roi_size=SHAPE[1:], num_samples=samples, random_size=False
    )
    records = [{"image": PIXELS[i], "label": i} for i in range(COUNT)]
    loader = data.DataLoader(data.Dataset(records, crops), batch_size=BATCH)
    orders = {
        1: "... whose items are lists of one sample",
        3: "... whose items are lists of several samples",
    }
    refusal = (InstaHideError, "list of 3 samples")
    check("MONAI", orders[samples], lambda: encoded(loader, classes=COUNT), refusal)


def test_a_stream() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter((PIXELS[i], i) for i in range(COUNT))

    refusal = (InstaHideError, "list(dataset)")
    check(
        "PyTorch",
        "an `IterableDataset`",
        lambda: encoded(DataLoader(Stream(), BATCH), classes=COUNT),
        refusal,
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("order", "shape"),
    [("volumes (C, D, H, W)", (2, 4, 6, 4)), ("grey images (H, W) without a channel", (8, 6))],
)
def test_images_of_other_shapes(order: str, shape: tuple[int, ...], workers: int) -> None:
    generator = np.random.default_rng(7)
    pixels = torch.from_numpy(generator.normal(size=(COUNT, *shape)).astype(np.float32))

    class Shaped(Items):
        def __getitem__(self, index: int) -> Any:
            return pixels[index], index

    loader = encoded(plain(Shaped(), num_workers=workers))
    check("PyTorch", order, lambda: loader, pixels=pixels)
    assert loader.exposure.counts.sum() == SCHEME.k * COUNT
    stacked = encoded(plain(TensorDataset(pixels, torch.arange(COUNT))), classes=COUNT)
    check("PyTorch", order, lambda: stacked, pixels=pixels)
    assert stacked.exposure.counts.sum() == SCHEME.k * COUNT


@pytest.mark.parametrize("shape", [(2, 4, 6, 4), (8, 6)])
def test_equal_images_of_other_shapes_are_never_mixed(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(7)
    pixels = torch.from_numpy(generator.normal(size=(COUNT, *shape)).astype(np.float32))
    pixels[COUNT // 2 :] = pixels[: COUNT // 2].clone()
    stacked = TensorDataset(pixels, torch.arange(COUNT))
    for dataset in (stacked, [stacked[i] for i in range(COUNT)]):
        loader = encoded(plain(dataset), classes=COUNT)
        for _, labels in loader:
            pairs = labels.reshape(len(labels), 2, -1) > 0
            assert (pairs.sum(1) <= 1).all()
        # Copies share a count, of every mix that one of them is in.
        assert loader.exposure.by_picture.sum() == SCHEME.k * COUNT
        halves = loader.exposure.counts.reshape(2, -1)
        assert (halves[0] == halves[1]).all()


def test_a_collate_that_gives_arrays() -> None:
    def arrays(items: list[Any]) -> Any:
        images, numbers = default_collate(items)
        return images.numpy(), numbers.numpy()

    check("NumPy", "a collate that gives arrays", lambda: encoded(plain(collate_fn=arrays)))


#: Names that a traversal must not follow: what they give is asked for by name.
EXPLICIT = {"unwrapped"}


def reachable(thing: Any) -> dict[int, Any]:
    """All objects that attributes, items of containers and bound methods lead to."""
    found: dict[int, Any] = {}
    waiting = [thing]
    while waiting:
        each = waiting.pop()
        if id(each) in found or isinstance(each, (type, str, bytes, int, float, type(np))):
            continue
        found[id(each)] = each
        if isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, (list, tuple, set, frozenset)):
            waiting += each
        elif type(each).__module__.startswith(("instahide", "torch.utils", "functools", "tests")):
            names = {*dir(each), "__dict__"} - EXPLICIT
            for name in names:
                try:
                    waiting.append(getattr(each, name))
                except Exception:  # noqa: S112  # what raises gives nothing
                    continue
        elif hasattr(each, "__self__"):
            waiting.append(each.__self__)
        elif hasattr(each, "gi_frame") and each.gi_frame is not None:
            waiting += each.gi_frame.f_locals.values()
    return found


@pytest.mark.parametrize("started", [False, True])
def test_no_attribute_leads_to_the_data_set(started: bool) -> None:
    loader = plain()
    wrapped = encoded(loader)
    things = [wrapped, vars(wrapped), wrapped.__reduce__(), wrapped.sampler, wrapped.batch_sampler]
    if started:
        iterator = iter(wrapped)
        next(iterator)
        things += [iterator, wrapped.dataset, iter(wrapped.sampler)]
    found = reachable(things)
    assert id(loader.dataset) not in found
    assert not any(isinstance(each, DataLoader) for each in found.values())
    # The same walk does find it from a plain loader, and from the explicit attribute.
    assert id(loader.dataset) in reachable(wrapped.unwrapped)


def test_what_is_hidden_is_freed_with_its_loader() -> None:
    def made() -> weakref.ref[Any]:
        loader = plain()
        wrapped = encoded(loader)
        iterator = iter(wrapped)
        next(iterator)
        return weakref.ref(loader.dataset)

    reference = made()
    gc.collect()
    assert reference() is None


def test_settings_are_shown_and_cannot_be_changed() -> None:
    generator = torch.Generator()
    wrapped = encoded(plain(generator=generator, timeout=0, drop_last=True))
    assert (wrapped.batch_size, wrapped.drop_last, wrapped.num_workers) == (BATCH, True, 0)
    assert wrapped.generator is generator
    assert len(wrapped.dataset) == COUNT
    assert wrapped.dataset.classes == tuple(f"class {number}" for number in range(COUNT))
    assert wrapped.dataset.num_classes == COUNT
    assert sorted(wrapped.sampler) == list(range(COUNT))
    assert sorted(chain.from_iterable(wrapped.batch_sampler)) == list(range(COUNT))
    assert len(wrapped.batch_sampler) == COUNT // BATCH
    for name in ("dataset", "sampler", "batch_sampler", "collate_fn", "batch_size", "anything"):
        with pytest.raises((InstaHideError, AttributeError)):
            setattr(wrapped, name, None)
    with pytest.raises(InstaHideError, match="cannot be set"):
        wrapped.batch_sampler.sampler = None


@pytest.mark.parametrize(
    "ask",
    [
        lambda dataset: dataset[0],
        lambda dataset: dataset[-1:],
        lambda dataset: dataset["image"],
        lambda dataset: next(iter(dataset)),
        lambda dataset: list(dataset),
        lambda dataset: dataset.__getitems__([0]),
        lambda dataset: (dataset + dataset)[0],
        lambda dataset: 3 in dataset,
    ],
)
def test_items_are_refused_with_what_to_do(ask: Any) -> None:
    with pytest.raises(InstaHideError, match=r"`loader.unwrapped`.*itertools.islice"):
        ask(encoded().dataset)

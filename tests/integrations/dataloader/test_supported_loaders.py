"""What a wrapped loader refuses, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from instahide import Exposure, InstaHideError, Scheme, encode_loader
from instahide.errors import IntegrationError
from instahide.integrations.lightning import InstaHideCallback
from tests.integrations.dataloader.wrapped_loaders import COUNT, HALF, INSIDE, ITEMS, loader, mixing


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
    (lambda: [1, 2], "is a list, not a PyTorch DataLoader"),
    (lambda: OwnWay(ITEMS), "a OwnWay, iterates in a way of its own"),  # type: ignore[arg-type]
    (lambda: DataLoader(Streaming()), "in a stream, not by number"),
    (lambda: loader(None), "batch_size=None"),
    (lambda: loader(sampler=Endless()), "The sampler has no length"),
    (lambda: loader(1, batch_sampler=Endless()), "The sampler has no length"),
    (lambda: loader(sampler=Lying()), "length of the batch sampler is 3, but"),
    (lambda: DataLoader(Unsized(), 2, sampler=HALF), "The data set has no length"),  # type: ignore[arg-type]
    (lambda: loader(1, batch_sampler=Sampled([["a"]])), "indices that are not integers"),
    (lambda: loader(1, batch_sampler=Sampled([[True, False] * 4])), "not integers"),
    (lambda: loader(1, batch_sampler=Sampled([torch.arange(40) > 3])), "not integers"),
    (lambda: loader(1, batch_sampler=Sampled([np.arange(40) > 3])), "not integers"),
    (lambda: loader(1, batch_sampler=Sampled([[1.0, 2.0]])), "not integers"),
    (lambda: loader(1, batch_sampler=Sampled([[0, -1]])), "out of range: there are 40 items"),
    (lambda: loader(1, batch_sampler=Sampled([[40]])), "out of range: there are 40 items"),
    (lambda: loader(sampler=[5, 9, 5]), "but the sampler yields only 2"),
]


@pytest.mark.parametrize(("make", "message"), LOADERS)
def test_loaders_that_cannot_be_wrapped_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InstaHideError, match=message):
        refused(make())


CONTENTS: list[tuple[Any, dict[str, Any], str]] = [
    (lambda x, y: ((x * 255).byte(), y), {}, "make such a field: normalized images"),
    (lambda x, y: ((x * 255).byte(), y), {"fields": (0, None)}, "batch of 8 are uint8 of shape"),
    (lambda x, y: (x.abs(), y), {}, r"of one sign.* mask would hide nothing.* Normalize"),
    (lambda x, y: (-x.abs(), y), {}, "of one sign"),
    (spoilt, {}, "The image of item 17 has values that are NaN or infinite"),
    (lambda x, y: (x[1:], y), {"fields": (0, None)}, "images of a batch of 8 are float32 of shape"),
    (lambda x, y: (x, y[1:]), {"fields": (None, 1)}, "labels of a batch of 8 are int64 of shape"),
    (lambda x, y: (x, y.float()), {"fields": (None, 1)}, "labels of a batch of 8 are float32"),
    (lambda x, y: (x, y), {"fields": (None, 2)}, r"no field \[2\]"),
    (lambda x, y: (x, y.tolist()), {"fields": (None, 1)}, "is a list, not a tensor"),
    (lambda x, y: (x, y), {"classes": 10}, "Labels run from .*, but there are 10 classes"),
    (lambda x, y: (x, y - 1), {}, "Labels run from -1 to"),
    (lambda x, y: (x, torch.eye(40)[y] - 0.1), {}, "Soft labels .* are negative, NaN"),
    (lambda x, y: (x, torch.eye(40)[y] * torch.nan), {}, "Soft labels .* are negative, NaN"),
    (
        lambda x, y: (x, y[:, None].repeat(1, 2)),
        {"fields": (None, 1)},
        "labels of a batch of 8 are int64 of shape",
    ),
    (lambda x, y: (x, y > 3), {"fields": (None, 1)}, "labels of a batch of 8 are bool of shape"),
    (lambda x, y: (x, torch.eye(50)[y]), {}, "50 columns, but there are 40 classes"),
    (
        lambda x, y: (x[..., : 4 + y[0] % 4], y),
        {},
        "those of their partners|another image in row 1",
    ),
    (lambda x, y: (x.to("meta"), y), {}, "The batch is on meta"),
]


@pytest.mark.parametrize(("change", "options", "message"), CONTENTS)
def test_batches_that_cannot_be_mixed_are_refused(
    change: Any, options: dict[str, Any], message: str
) -> None:
    others = mixing()
    with pytest.raises(InstaHideError, match=message):
        refused(changed(change), **options)
    assert mixing() <= others


def test_images_of_other_sizes_than_their_partners_are_refused() -> None:
    sized = [(torch.randn(1, 8, 8 + item // 8), item) for item in range(16)]
    batches: Any = DataLoader(sized, 8)  # type: ignore[arg-type]
    with pytest.raises(InstaHideError, match="those of their partners"):
        refused(batches, Scheme.inside(3), classes=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exposure": Exposure(7)}, "counts 7 images, but the data set has 40 items"),
        ({"mean": [0.5]}, "Only one of mean and std is given"),
        ({"scheme": Scheme.cross(4)}, "2 public images, but there are none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InstaHideError, match=message):
        refused(loader(), **options)


@pytest.mark.parametrize("fields", [None, "image", "ab", (), ("image",), (0, 1, 2), {"image": 0}])
def test_fields_that_are_not_two_are_refused(fields: Any) -> None:
    with pytest.raises(IntegrationError, match="does not name two fields"):
        refused(loader(), fields=fields)
    with pytest.raises(IntegrationError, match="does not name two fields"):
        InstaHideCallback(INSIDE, fields=fields)


def test_labels_that_are_named_as_the_images_are_refused() -> None:
    with pytest.raises(InstaHideError, match=r"The images \[1\] of a batch are int64"):
        refused(loader(), fields=(1, 0), classes=40)


def test_classes_that_nobody_knows_are_asked_for() -> None:
    pairs = [(ITEMS.images[number], number % 3) for number in range(COUNT)]
    with pytest.raises(InstaHideError, match="number or their names as classes="):
        refused(DataLoader(pairs, 8))  # type: ignore[arg-type]
    for classes in (3, ("a", "b", "c")):
        for _, labels in encode_loader(DataLoader(pairs, 8), INSIDE, classes=classes):  # type: ignore[arg-type]
            assert labels.shape[1] == 3


def view(images: Tensor) -> Any:
    """Batches of ``images`` have something more, made of them by the argument."""
    return {"image": images, "label": torch.arange(len(images)) % 3}


@pytest.mark.parametrize(
    "more",
    [
        lambda x: x.clone(),
        lambda x: x,
        lambda x: (x * 255).byte(),
        lambda x: x[:, 0],
        lambda x: x[:, 0] > 0,
        lambda x: x.flatten(1),
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x[:, None],
        lambda x: torch.nn.functional.interpolate(x, scale_factor=2),
        lambda x: list(x),
        lambda x: {"raw": [x.numpy()]},
        lambda x: [image.permute(1, 2, 0).numpy() for image in x],
        lambda x: [torch.zeros(3, 30 + number, 20) for number in range(len(x))],
        lambda x: [Image.new("RGB", (30 + number, 20)) for number in range(len(x))],
    ],
)
def test_other_images_in_a_batch_are_refused(more: Any) -> None:
    def collate(items: list[Any]) -> Any:
        images = default_collate(items)[0]
        return {**view(images), "other": more(images)}

    for fields in ((None, None), ("image", "label")):
        with pytest.raises(InstaHideError, match=r"Besides the images \['image'\] .*\['other'\]"):
            refused(loader(collate_fn=collate), classes=3, fields=fields)


@pytest.mark.parametrize(
    "more",
    [
        lambda x: torch.arange(len(x)),
        lambda x: torch.zeros(len(x), 5, 4),
        lambda x: torch.eye(8)[: len(x)],
        lambda x: ["a name"] * len(x),
        lambda x: torch.zeros(len(x), 3),
        lambda x: [torch.zeros(number, 4) for number in range(len(x))],
    ],
)
def test_other_fields_stay_as_they_are(more: Any) -> None:
    def collate(items: list[Any]) -> Any:
        images = default_collate(items)[0]
        return {**view(images), "other": more(images)}

    for batch in encode_loader(
        loader(collate_fn=collate), INSIDE, fields=(None, "label"), classes=3
    ):
        expected = more(batch["image"])
        assert type(batch["other"]) is type(expected)
        assert len(batch["other"]) == len(expected)


@pytest.mark.parametrize(
    ("classes", "count"),
    [
        (COUNT, COUNT),
        (np.int64(COUNT), COUNT),
        (torch.tensor(COUNT), COUNT),
        (np.array([f"class {number}" for number in range(COUNT)]), COUNT),
        (torch.arange(COUNT), COUNT),
        ({f"class {number}": number for number in range(COUNT)}, COUNT),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_classes_in_other_types(classes: Any, count: int, given: bool) -> None:
    class Said(type(ITEMS)):  # type: ignore[misc]
        pass

    Said.classes = ["wrong"] if given else classes
    options = {"classes": classes} if given else {}
    encoded = encode_loader(DataLoader(Said(), 8), INSIDE, **options)
    assert encoded.dataset.num_classes == count
    assert all(labels.shape[1] == count for _, labels in encoded)


@pytest.mark.parametrize("classes", [0, -3, 2.5, True, {"a", "b"}, ["a", "a"], "cat", object()])
def test_classes_that_are_not_clear_are_refused(classes: Any) -> None:
    with pytest.raises(InstaHideError, match="class"):
        encode_loader(loader(), INSIDE, classes=classes)

"""A collate function that puts other images into a batch is refused: none goes uncounted."""

from __future__ import annotations

import random
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate

from instahide import Exposure, InstaHideError, Scheme, encode_loader
from instahide.integrations.dataloader.workers import CheckedCollate, FetchedItems

COUNT = 24
IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(COUNT, 1, 6, 6)).astype(np.float32))
NUMBERS = torch.arange(COUNT) % 3
INSIDE = Scheme.inside(3)


def encoded(collate: Any, items: Any = None, **more: Any) -> list[Any]:
    source = TensorDataset(IMAGES, NUMBERS) if items is None else items
    return list(encode_loader(DataLoader(source, 8, collate_fn=collate, **more), INSIDE, classes=3))


def stacked(items: list[Any]) -> tuple[Tensor, Tensor]:
    images, numbers = default_collate(items)
    return images.clone(), numbers


def mixup(items: list[Any]) -> Any:
    images, numbers = stacked(items)
    share = np.random.default_rng().beta(1, 1)
    return share * images + (1 - share) * images.roll(1, 0), numbers


def seeded_mixup(items: list[Any]) -> Any:
    images, numbers = stacked(items)
    share = random.random()  # noqa: S311
    return share * images + (1 - share) * images[torch.randperm(len(images))], numbers


def cutmix(items: list[Any]) -> Any:
    images, numbers = stacked(items)
    images[:, :, :2, :2] = images.roll(1, 0)[:, :, :2, :2]
    return images, numbers


def mosaic(items: list[Any]) -> Any:
    images, numbers = stacked(items)
    halves = torch.cat([images[..., ::2], images.flip(0)[..., ::2]], dim=-1)
    return halves, numbers


def whitened_by_batch(items: list[Any]) -> Any:
    images, numbers = stacked(items)
    return (images - images.mean()) / images.std(), numbers


def in_place(items: list[Any]) -> Any:
    items = [(image.clone(), number) for image, number in items]
    for place in range(1, len(items)):
        items[place][0].mul_(0.5).add_(items[place - 1][0], alpha=0.5)
    return default_collate(items)


def in_place_of_the_data_set(items: list[Any]) -> Any:
    for place in range(1, len(items)):
        items[place][0].mul_(0.5).add_(items[place - 1][0], alpha=0.5)
    return default_collate(items)


def in_place_by_arrays(items: list[Any]) -> Any:
    for place in range(1, len(items)):
        items[place][0].numpy()[0, 0] = items[place - 1][0].numpy()[0, 0]
    return default_collate(items)


def reordered(items: list[Any]) -> Any:
    return default_collate(items[::-1])


def one_pixel(items: list[Any]) -> Any:
    images, numbers = stacked(items)
    images[0, 0, 0, 0] = images[-1, 0, 0, 0]
    return images, numbers


def sometimes(items: list[Any]) -> Any:
    """Only the batch with item 9 is mixed."""
    return (
        mixup(items) if any(torch.equal(each[0], IMAGES[9]) for each in items) else stacked(items)
    )


def dropped(items: list[Any]) -> Any:
    return stacked(items[1:])


def added(items: list[Any]) -> Any:
    return stacked([*items, items[0]])


def replaced(items: list[Any]) -> Any:
    return stacked([items[1], *items[1:]])


def noisy_at_random(items: list[Any]) -> Any:
    """Each image otherwise, by the same random numbers."""
    images, numbers = stacked(items)
    return images + 0.1 * torch.randn(images.shape), numbers


MIXING = [
    mixup, seeded_mixup, cutmix, mosaic, whitened_by_batch, in_place, in_place_of_the_data_set,
    in_place_by_arrays, reordered, one_pixel, sometimes, dropped, added, replaced,
    noisy_at_random,
]  # fmt: skip


@pytest.mark.parametrize("collate", MIXING)
def test_collate_functions_that_mix_are_refused(collate: Any) -> None:
    with pytest.raises(InstaHideError):
        encoded(collate, TensorDataset(IMAGES.clone(), NUMBERS))


@pytest.mark.parametrize("collate", [in_place_of_the_data_set, in_place_by_arrays, mixup])
def test_a_function_that_begins_to_mix_is_found(collate: Any) -> None:
    check, items = CheckedCollate(stacked, None), [(image.clone(), 0) for image in IMAGES[:8]]
    assert check(FetchedItems(items, 8, whole=False)).image == "[0]"
    check.collate = collate
    assert check(FetchedItems(items, 8, whole=False)).refusal


def test_a_refusal_in_a_worker_says_what_to_do() -> None:
    with pytest.raises(InstaHideError, match="leave out Mixup, CutMix"):
        encoded(mixup, num_workers=1)


Pair = namedtuple("Pair", ["image", "label"])


def normalized(items: list[Any]) -> Any:
    """As processors do it: from pixels to values, in the collate function."""
    pixels = torch.from_numpy(np.stack([np.array(item["pic"]) for item in items]))
    values = (pixels[:, None].float() / 255 - 0.5) / 0.25
    return {"pixel_values": values, "labels": torch.tensor([item.pop("label") for item in items])}


def noisy(items: list[Any]) -> Any:
    """Random, and the same for every image."""
    images, numbers = stacked(items)
    return images + 0.1 * torch.randn(images.shape[1:]), numbers


def listed(items: list[Any]) -> Any:
    """As MONAI's `list_data_collate` does: items may be lists of items."""
    return default_collate([each for item in items for each in item])


class Fresh(list[Any]):
    """Items made anew for every call, as data sets of files make them."""

    def __getitem__(self, index: Any) -> Any:
        return dict(super().__getitem__(index))


KEEPING: list[tuple[Any, Any]] = [
    (None, None),
    (None, [(image.numpy(), int(number)) for image, number in zip(IMAGES, NUMBERS, strict=True)]),
    (None, [Pair(*each) for each in zip(IMAGES, NUMBERS, strict=True)]),
    (None, [{"image": image, "label": 1, "id": "x"} for image in IMAGES]),
    (None, [{"scan": {"image": image}, "label": 1} for image in IMAGES]),
    (None, [[image, 1, image.sum()] for image in IMAGES]),
    (lambda items: (stacked(items)[0].half(), stacked(items)[1]), None),
    (lambda items: (stacked(items)[0] * 2 - 1, stacked(items)[1]), None),
    (lambda items: (stacked(items)[0].flip(-1), stacked(items)[1]), None),
    (lambda items: (stacked(items)[0].numpy(), stacked(items)[1].numpy()), None),
    (noisy, None),
    (listed, [[(image, 1)] for image in IMAGES]),
    (
        normalized,
        Fresh([
            {"pic": Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 6), np.uint8)),
             "label": 1}
            for i in range(COUNT)
        ]),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(KEEPING)))
def test_collate_functions_that_keep_each_image_are_used(case: int) -> None:
    collate, items = KEEPING[case]
    assert len(encoded(collate, items)) == 3


@given(st.integers(2, 9), st.data())
def test_any_row_that_is_not_its_item_s_is_found(size: int, data: st.DataObject) -> None:
    items = [(torch.randn(2, 3, 4), number) for number in range(size)]
    row = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda each: each != row))
    share = data.draw(st.floats(1e-3, 1))
    mixes = data.draw(st.booleans())

    def collate(items: list[Any]) -> Any:
        images, numbers = stacked(items)
        if mixes and len(images) == size:
            images[row] = (1 - share) * images[row] + share * images[other]
        return images * 3, numbers

    made = CheckedCollate(collate, None)(FetchedItems(items, size, whole=False))
    assert (made.image is None) is (made.refusal is not None) is mixes
    if made.refusal:
        assert f"row {row} of a batch" in made.refusal[0]


def test_the_user_s_random_numbers_are_those_without_the_check() -> None:
    def drawing(items: list[Any]) -> Any:
        images, numbers = stacked(items)
        seen.append((torch.rand(()).item(), np.random.rand(), random.random()))  # noqa: S311
        return images * 2, numbers

    outcomes = []
    for collate in (drawing, CheckedCollate(drawing, None)):
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        seen: list[Any] = []
        parts = [FetchedItems([(image, 0) for image in IMAGES[:4]], 4, whole=False)] * 3
        for part in parts:
            collate(part if isinstance(collate, CheckedCollate) else part.items)
        outcomes.append(seen if collate is drawing else seen[::5])
    assert outcomes[0] == outcomes[1]


class Whole(TensorDataset):
    """Gives batches itself."""

    def __getitems__(self, indices: list[int]) -> Any:
        return [self.tensors[0][indices], self.tensors[1][indices]]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_batches_that_a_data_set_made_may_not_be_changed(size: int) -> None:
    source = Whole(IMAGES, NUMBERS)
    for collate, refused in [
        (lambda batch: batch, False),
        (lambda batch: {"x": batch[0], "y": batch[1]}, False),
        (lambda batch: [batch[0].flip(0), batch[1]], True),
        (lambda batch: [batch[0].mul_(0.5).add_(batch[0].roll(1, 0)), batch[1]], True),
    ]:
        loader: Any = DataLoader(source, size, collate_fn=collate)
        made = encode_loader(loader, INSIDE, classes=3)
        if refused:
            with pytest.raises(InstaHideError, match="collate function"):
                list(made)
        else:
            assert len(list(made)) == COUNT // size


def test_exposure_is_never_below_what_is_in_the_encodings() -> None:
    # Image i alone is bright at pixel i: what an encoding holds can be read off it.
    eye = torch.eye(COUNT).reshape(COUNT, 1, 4, 6) * 2 - 2 / COUNT
    for collate in (None, stacked, mixup):
        exposure, held = Exposure(COUNT, limit=9), np.zeros(COUNT, int)
        source = TensorDataset(eye, NUMBERS)
        loader: Any = DataLoader(source, 8, collate_fn=collate)
        try:
            for _ in range(4):
                for images, _ in encode_loader(loader, INSIDE, classes=3, exposure=exposure):
                    held += (images.abs().reshape(-1, COUNT) > 0.1).sum(0).numpy()
        except InstaHideError:
            pass
        assert (held <= exposure.counts).all()
        assert exposure.counts.max() <= 9

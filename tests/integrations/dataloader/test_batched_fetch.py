"""A data set that mixes images in one call for a batch is refused; random transforms are not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from instahide import InstaHideError, Scheme, encode_loader

COUNT = 32
IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(COUNT, 1, 6, 6)).astype(np.float32))
INSIDE = Scheme.inside(2)

#: A transform of the images (n, 1, 6, 6) of a batch.
Transform = Callable[[Tensor], Tensor]


class Batched(Dataset[Any]):
    """Applies a transform to all items of a batch; ``form`` is how it returns them."""

    def __init__(self, transform: Transform, form: str = "items") -> None:
        self.transform = transform
        self.form = form
        self.fetched = 0

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("only batches are fetched")

    def __getitems__(self, indices: list[int]) -> Any:
        self.fetched += len(indices)
        images = self.transform(IMAGES[indices].clone())
        numbers = torch.tensor(indices) % 3
        if self.form == "batch":
            return [images, numbers]
        if self.form == "dicts":
            return [{"x": x, "y": int(y)} for x, y in zip(images, numbers, strict=True)]
        return list(zip(images, numbers, strict=True))


def encoded(source: Any, size: int = 8, **more: Any) -> list[Any]:
    if isinstance(source, Batched) and source.form == "batch":
        more["collate_fn"] = as_it_is
    return list(encode_loader(DataLoader(source, size, **more), INSIDE, classes=3))


def as_it_is(batch: Any) -> Any:
    return batch


def mixed(images: Tensor, share: float, order: Tensor | None = None) -> Tensor:
    others = images.roll(1, 0) if order is None else images[order]
    return share * images + (1 - share) * others


def cutmix(images: Tensor) -> Tensor:
    images[..., :3, :3] = images.roll(1, 0)[..., :3, :3]
    return images


def mosaic(images: Tensor) -> Tensor:
    return torch.cat([images[..., ::2], images.flip(0)[..., ::2]], dim=-1)


def later_rows(images: Tensor) -> Tensor:
    for place in range(1, len(images)):
        images[place] = images[place] / 2 + images[place - 1] / 2
    return images


MIXING: dict[str, Transform] = {
    "roll": lambda x: mixed(x, 0.5),
    "torch": lambda x: mixed(x, 0.1 + 0.6 * torch.rand(()).item(), torch.randperm(len(x))),
    "random": lambda x: mixed(x, 0.1 + 0.6 * random.random()),  # noqa: S311
    "numpy": lambda x: mixed(x, 0.6 * np.random.rand()),
    "unknown generator": lambda x: mixed(x, 0.6 * np.random.default_rng().random()),
    "at times": lambda x: mixed(x, 0.5) if random.random() < 0.5 else x,  # noqa: S311
    "with noise": lambda x: mixed(x + 0.1 * torch.randn(x.shape), 0.5),
    "cutmix": cutmix,
    "mosaic": mosaic,
    "later rows": later_rows,
    "of four": lambda x: mixed(x, 0.5) if len(x) > 3 else x,
    "reordered": lambda x: x.flip(0),
    "whitened": lambda x: (x - x.mean()) / x.std(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("form", ["items", "dicts", "batch"])
def test_a_batch_that_the_data_set_mixed_is_refused(name: str, form: str) -> None:
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    source = Batched(MIXING[name], form)
    # Four epochs, since some transforms mix in a part of the batches.
    with pytest.raises(InstaHideError, match=r"data set, which makes.*leave out Mixup, CutMix"):
        _ = [encoded(source) for _ in range(4)]


def test_also_in_workers_and_through_a_subset() -> None:
    for more in ({"num_workers": 1}, {"shuffle": True}):
        with pytest.raises(InstaHideError, match="The data set, which makes several items"):
            encoded(Subset(Batched(lambda x: mixed(x, 0.5)), range(20)), **more)


def test_a_batch_wise_transform_of_hugging_face() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"i": list(range(COUNT)), "label": [0, 1] * (COUNT // 2)})

    def using(change: Transform) -> Any:
        def transform(batch: dict[str, list[int]]) -> dict[str, Any]:
            return {"pixel_values": list(change(IMAGES[batch["i"]])), "label": batch["label"]}

        return rows.with_transform(transform)

    with pytest.raises(InstaHideError, match="The data set, which makes several items"):
        encoded(using(lambda x: mixed(x, 0.5)))
    assert len(encoded(using(flipped_each))) == COUNT // 8


def flipped_each(images: Tensor) -> Tensor:
    return torch.stack([x.flip(-1) if torch.rand(()) < 0.5 else x for x in images])


def flipped_by_unknown(share: float) -> Transform:
    def flipped(images: Tensor) -> Tensor:
        draws = np.random.default_rng().random(len(images))
        return torch.stack([x.flip(-1) if u < share else x for x, u in zip(images, draws)])  # noqa: B905

    return flipped


class OwnGenerator:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(3)

    def __call__(self, images: Tensor) -> Tensor:
        return images + torch.from_numpy(self.generator.normal(size=images.shape)).float()


def in_stages(images: Tensor) -> Tensor:
    """How many random numbers the first stage draws depends on the images."""
    for image in images:
        for _ in range(int(image.abs().sum()) % 4):
            random.random()  # noqa: S311
    return torch.stack([x * (1 + random.random()) for x in images])  # noqa: S311


KEEPING: dict[str, Transform] = {
    "none": lambda x: x,
    "deterministic": lambda x: x.flip(-1) * 2,
    "each": flipped_each,
    "noise of a batch": lambda x: x + torch.randn(x.shape),
    "numpy": lambda x: x * torch.from_numpy(np.random.rand(len(x), 1, 1, 1)).float(),
    "random": lambda x: torch.stack([each * (1 + random.random()) for each in x]),  # noqa: S311
    "unknown noise": lambda x: x + torch.from_numpy(np.random.default_rng().random(x.shape)),
    "unknown flips": flipped_by_unknown(0.5),
    "rare unknown flips": flipped_by_unknown(0.1),
    "own generator": OwnGenerator(),
    "in stages": in_stages,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The items of the data set change")
@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("size", [2, 31])
def test_random_transforms_of_single_images_are_used(name: str, size: int) -> None:
    for form in ("items", "batch"):
        assert len(encoded(Batched(KEEPING[name], form), size)) == -(-COUNT // size)


@pytest.mark.slow
def test_two_more_items_are_fetched_for_a_batch() -> None:
    source = Batched(lambda x: x)
    encoder = encode_loader(DataLoader(source, 8), Scheme.plain(), classes=3)
    # The first epoch also looks for duplicates.
    list(encoder)
    source.fetched = 0
    list(encoder)
    assert source.fetched == COUNT + 2 * COUNT // 8


def test_the_random_numbers_are_those_without_the_check() -> None:
    seen: list[float] = []

    def drawing(images: Tensor) -> Tensor:
        seen.append(torch.rand(()).item() + np.random.rand() + random.random())  # noqa: S311
        return images

    def drawn(loader: Any) -> list[float]:
        seen.clear()
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        list(loader)
        return list(seen)

    loader: Any = DataLoader(Batched(drawing), 8)
    ours = encode_loader(loader, Scheme.plain(), classes=3)
    list(ours)
    plain = drawn(loader)
    # Each batch is fetched, then two items of it, with the random numbers of the batch.
    assert drawn(ours) == [each for each in plain for _ in range(3)]

"""Any map-style data set: the same values as the table, whatever its items look like."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from instahide.data import ImageDataset, ImageSource, ImageTable, open_images
from instahide.errors import InstaHideError

GENERATOR = np.random.default_rng(3)
TABLE = ImageTable.from_arrays(
    GENERATOR.integers(0, 256, (30, 6, 5, 3), np.uint8), np.arange(30) % 3, ("cat", "cow", "dog")
)


class Items:
    """A data set made of a function from a number to an item."""

    def __init__(self, item: Callable[[int], Any], length: int = 30, **attributes: Any) -> None:
        self.item, self.length = item, length
        vars(self).update(attributes)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


def hwc(index: int) -> np.ndarray:
    return TABLE.pixels[index].transpose(1, 2, 0)


def label(index: int) -> int:
    return int(TABLE.labels[index])


ITEMS: dict[str, Callable[[int], Any]] = {
    "PIL": lambda i: (Image.fromarray(hwc(i)), label(i)),
    "PIL with alpha": lambda i: (Image.fromarray(hwc(i)).convert("RGBA"), label(i)),
    "uint8 array": lambda i: (hwc(i), np.int64(label(i))),
    "uint8 tensor": lambda i: (torch.from_numpy(TABLE.pixels[i].copy()), torch.tensor(label(i))),
    "float tensor": lambda i: (torch.from_numpy(TABLE.normalized()[i]), torch.tensor([label(i)])),
    "float64 array": lambda i: [TABLE.normalized()[i].astype(np.float64), np.asarray([label(i)])],
    "Hugging Face": lambda i: {"img": Image.fromarray(hwc(i)), "fine_label": label(i)},
    "MONAI": lambda i: {"image": torch.from_numpy(TABLE.normalized()[i]), "label": label(i)},
    "processor": lambda i: {"pixel_values": TABLE.normalized()[i], "labels": label(i)},
}


@pytest.mark.parametrize("kind", ITEMS)
@pytest.mark.parametrize("workers", [1, 3])
def test_values_are_those_of_the_table(kind, workers):
    images = ImageDataset(
        Items(ITEMS[kind]),
        mean=TABLE.mean,
        std=TABLE.std,
        classes=TABLE.classes,
        workers=workers,
    )
    indices = GENERATOR.integers(0, 30, (7, 4))
    rows, expected = images.rows(indices), TABLE.rows(indices)
    assert rows.pixels.dtype == np.float32
    assert len(rows.pixels) == len(np.unique(indices))
    np.testing.assert_array_equal(rows.pixels[rows.positions], TABLE.normalized()[indices])
    np.testing.assert_array_equal(rows.labels, expected.labels)
    assert images.shape == TABLE.shape
    assert len(images) == len(TABLE)
    assert (images.normalization, images.classes) == (TABLE.normalization, TABLE.classes)
    assert images.scale.tolist() == [1, 1, 1]
    assert images.bias.tolist() == [0, 0, 0]


def test_both_kinds_of_images_keep_the_protocol():
    assert isinstance(TABLE, ImageSource)
    assert isinstance(ImageDataset(Items(ITEMS["PIL"])), ImageSource)


def test_grey_images_have_one_channel():
    images = open_images("digits")
    for item in (
        lambda i: (Image.fromarray(images.pixels[i, 0]), 0),
        lambda i: (images.pixels[i, 0], 0),
        lambda i: (images.pixels[i, 0, :, :, None], 0),
        lambda i: (images.pixels[i], 0),
    ):
        dataset = ImageDataset(Items(item), mean=images.mean, std=images.std)
        values = dataset.rows(np.arange(5)[:, None]).pixels
        np.testing.assert_array_equal(values, images.normalized(slice(5)))


def test_moments_are_measured_on_8_bit_items():
    images = ImageDataset(Items(ITEMS["PIL"]))
    assert images.normalization == TABLE.normalization


def test_an_item_is_fetched_once_a_call():
    fetched: list[int] = []

    def item(index: int) -> Any:
        fetched.append(index)
        return ITEMS["PIL"](index)

    images = ImageDataset(Items(item), mean=TABLE.mean, std=TABLE.std, classes=TABLE.classes)
    fetched.clear()
    images.rows(np.asarray([[4, 9], [9, 4], [9, 9]]))
    assert sorted(fetched) == [4, 9]


@given(
    indices=arrays.arrays(
        np.int64, st.tuples(*[st.integers(1, 6)] * 2), elements=st.integers(0, 29)
    )
)
def test_positions_find_every_image_again(indices):
    images = ImageDataset(
        Items(ITEMS["uint8 array"]), mean=TABLE.mean, std=TABLE.std, classes="abc", workers=1
    )
    rows = images.rows(indices)
    np.testing.assert_array_equal(rows.pixels[rows.positions], TABLE.normalized()[indices])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"classes": ["a", "b", "c"]}, ("a", "b", "c")),
        ({"features": {"label": SimpleNamespace(names=["a", "b", "c"])}}, ("a", "b", "c")),
        ({"targets": [0, 1, 2, 3]}, ("0", "1", "2", "3")),
        ({"targets": torch.tensor([0, 1, 2])}, ("0", "1", "2")),
        ({}, ("0", "1", "2")),
    ],
)
def test_where_class_names_come_from(attributes, expected):
    assert ImageDataset(Items(ITEMS["PIL"], **attributes)).classes == expected


def test_parts_of_torch_data_sets():
    tensors = TensorDataset(torch.from_numpy(TABLE.normalized()), torch.from_numpy(TABLE.labels))
    images = ImageDataset(Subset(tensors, [3, 1, 4]))
    np.testing.assert_array_equal(
        images.rows(np.asarray([[0, 1, 2]])).pixels, TABLE.normalized()[[3, 1, 4]]
    )
    named = Subset(Items(ITEMS["PIL"], classes=["a", "b", "c"]), [0, 3])  # type: ignore[arg-type]
    assert ImageDataset(named).classes == ("a", "b", "c")


def except_item(number: int, bad: Any) -> Items:
    return Items(lambda i: bad if i == number else ITEMS["float tensor"](i))


NAN = torch.full((3, 6, 5), float("nan"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((NAN, 0), "item 17 has values that are NaN or infinite"),
        ((torch.full((3, 6, 5), -np.inf), 0), "item 17 has values that are NaN or infinite"),
        ((torch.zeros(3, 7, 5), 0), r"Item 17 is float32 \(3, 7, 5\)"),
        ((hwc(0), 0), "Item 17 is uint8"),
        ((torch.zeros(3, 6, 5), 3), "Item 17 has the label 3"),
        ((torch.zeros(3, 6, 5), -1), "Item 17 has the label -1"),
        ((torch.zeros(3, 6, 5), 0.5), "label of item 17 is not one whole number"),
        ((torch.zeros(3, 6, 5), "cat"), "label of item 17"),
        ((torch.zeros(3, 6, 5), [0, 1, 0]), "label of item 17"),
        ((torch.zeros(1, 2, 3, 6, 5), 0), "image of item 17 is float32 of shape"),
        ((torch.zeros(3, 6, 5, dtype=torch.int64), 0), "image of item 17 is int64"),
        ((torch.zeros(3, 6, 5), 0, "extra"), "Item 17 is neither"),
        ({"image": NAN}, "Item 17 is neither"),
        (({"not": "an image"}, 0), "image of item 17"),
    ],
)
def test_a_bad_item_is_named_wherever_it_lies(bad, message):
    images = ImageDataset(
        # Item 17 is none of the first that are looked at when the set has a thousand.
        Items(lambda i: bad if i == 17 else ITEMS["float tensor"](i % 30), length=1000),
        classes=("a", "b", "c"),
    )
    with pytest.raises(InstaHideError, match=message):
        images.rows(np.asarray([[0, 17], [17, 2]]))


def test_what_the_data_set_raises_is_kept_as_the_cause():
    def item(index: int) -> Any:
        if index == 29:
            raise OSError("image file is truncated")
        return ITEMS["PIL"](index)

    with pytest.raises(InstaHideError, match=r"Item 29 .*OSError: image file is truncated") as info:
        ImageDataset(Items(item))
    assert isinstance(info.value.__cause__, OSError)


def test_values_that_no_mask_would_hide_are_refused():
    for values in (TABLE.pixels / np.float32(255), -TABLE.pixels / np.float32(255)):
        with pytest.raises(InstaHideError, match="mask would hide nothing"):
            ImageDataset(Items(lambda i, values=values: (values[i], 0)))
    with pytest.raises(InstaHideError, match="mask would hide nothing"):
        ImageDataset(Items(ITEMS["PIL"]), mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,), (0.5,)), ((0.5,) * 3, (0.5, 0, 0.5)), ((np.nan,) * 3, (0.5,) * 3)]
)
def test_moments_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(InstaHideError):
        ImageDataset(Items(ITEMS["PIL"]), mean=mean, std=std)


def test_streams_and_empty_sets_are_refused():
    with pytest.raises(InstaHideError, match="map-style"):
        ImageDataset(iter([]))  # type: ignore[arg-type]
    with pytest.raises(InstaHideError, match="empty"):
        ImageDataset(Items(ITEMS["PIL"], length=0))

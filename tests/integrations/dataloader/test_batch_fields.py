"""Images and labels are found in batches of any make, and put back there."""

from __future__ import annotations

import copy
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass, field, make_dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.errors import InstaHideError
from instahide.integrations.dataloader.batch_fields import BatchFields, as_path
from instahide.integrations.dataloader.batch_fields import get_field as field_of

IMAGES, LABELS = torch.randn(4, 3, 2, 2), torch.arange(4)
SOFT = torch.full((4, 5), 0.2)
NEW, NEW_LABELS = torch.zeros(4, 3, 2, 2), torch.ones(4, 7)

Pair = namedtuple("Pair", ["x", "y"])
Plain = make_dataclass("Plain", ["x", "y"])
Frozen = make_dataclass("Frozen", ["x", "y"], frozen=True, slots=True)


@dataclass
class Computed:
    """One of its fields is no argument."""

    x: Tensor
    y: Tensor
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.x)


#: Batches, and where their images and labels are.
MAKES: dict[str, tuple[Any, Any, Any]] = {
    "tuple": ((IMAGES, LABELS), 0, 1),
    "list": ([LABELS, IMAGES], 1, 0),
    "named tuple": (Pair(IMAGES, LABELS), "x", "y"),
    "dict": ({"a": IMAGES, "b": LABELS, "id": ["p", "q", "r", "s"]}, "a", "b"),
    "ordered": (OrderedDict(a=IMAGES, b=LABELS), "a", "b"),
    "user dict": (UserDict(a=IMAGES, b=LABELS), "a", "b"),
    "read-only": (MappingProxyType({"a": IMAGES, "b": LABELS}), "a", "b"),
    "data class": (Plain(IMAGES, LABELS), "x", "y"),
    "frozen": (Frozen(IMAGES, LABELS), "x", "y"),
    "computed": (Computed(IMAGES, LABELS), "x", "y"),
    "nested": ([{"in": (IMAGES, "names")}, {"out": Plain(None, LABELS)}], (0, "in", 0),
               (1, "out", "y")),
    "soft": ((IMAGES, SOFT), 0, 1),
    "volumes": ((torch.randn(4, 1, 3, 2, 2), LABELS), 0, 1),
    "grey": ((torch.randn(4, 2, 6), LABELS), 0, 1),
    "half": ((IMAGES.half(), LABELS.int()), 0, 1),
    "arrays": ((IMAGES.numpy(), LABELS.numpy()), 0, 1),
    "by name": ({"image": IMAGES, "view": IMAGES, "label": LABELS, "id": LABELS}, "image", "label"),
    "processor": (UserDict(pixel_values=IMAGES, labels=LABELS), "pixel_values", "labels"),
}  # fmt: skip


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("said", [False, True])
def test_fields_are_found_and_replaced(make: str, said: bool) -> None:
    batch, image, label = MAKES[make]
    before = dict(batch) if make == "read-only" else copy.copy(batch)
    found = BatchFields.find(
        batch, 4, as_path(image) if said else None, as_path(label) if said else None
    )
    assert (found.image, found.label) == (as_path(image), as_path(label))
    new = found.put(batch, NEW, NEW_LABELS)
    assert type(new) is type(batch) or make == "read-only"
    kind = np.ndarray if make == "arrays" else Tensor
    # Images without a dimension of the channel come back without one.
    images = NEW.reshape(field_of(batch, found.image).shape)
    for path, value in ((found.image, images), (found.label, NEW_LABELS)):
        got = field_of(new, path)
        assert isinstance(got, kind)
        assert np.array_equal(got, value)
        # The batch that it was made of is as it was.
        assert field_of(batch, path) is field_of(before, path)
    if make == "dict":
        assert new["id"] is batch["id"]
    if make == "nested":
        assert new[0]["in"][1] == "names"


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((IMAGES, IMAGES, LABELS), r"2 fields that may be its images, .*; it holds \[0\] float32"),
        ((IMAGES, LABELS, LABELS), r"2 fields .* labels, .* \[2\] int64 \(4,\).* with `fields="),
        (((IMAGES * 255).byte(), LABELS), r"no fields .* floats of shape \(n, C, H, W\), .*; it "
         r"holds \[0\] uint8 \(4, 3, 2, 2\), .* normalized images"),
        ((IMAGES[:3], LABELS), "no fields that may be its images"),
        ((IMAGES, LABELS[:3]), "no fields that may be its labels"),
        ((IMAGES, LABELS.float()), "no fields that may be its labels"),
        ((IMAGES, LABELS.bool()), "no fields that may be its labels"),
        ((IMAGES[:, 0, 0], LABELS), "no fields that may be its images"),
        ((IMAGES, IMAGES[:, None], LABELS), "2 fields that may be its images"),
        ((IMAGES[:, 0], IMAGES[:, 1], LABELS), "2 fields that may be its images"),
        ("text", "holds no tensors"),
        ({"image": IMAGES, "img": IMAGES, "label": LABELS}, r"2 fields .*\['img'\] float32"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_asked_for(batch: Any, message: str) -> None:
    with pytest.raises(InstaHideError, match=message):
        BatchFields.find(batch, 4, None, None)


@pytest.mark.parametrize("path", [("z",), (2,), (0, "z"), ("x", "y")])
def test_a_field_that_is_not_there(path: Any) -> None:
    for batch in ((IMAGES, LABELS), {"a": IMAGES}, Plain(IMAGES, LABELS)):
        with pytest.raises(InstaHideError, match="no field"):
            field_of(batch, path)


def test_a_place_from_the_end() -> None:
    new = BatchFields((0,), (-1,)).put((IMAGES, "between", LABELS), NEW, NEW_LABELS)
    assert new[1] == "between"
    assert new[2] is NEW_LABELS

"""A batch that would hand out plain images is refused, wherever and in whatever form they are."""

from __future__ import annotations

import base64
import io
from collections import UserDict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from instahide import InstaHideError, Scheme, encode_loader
from instahide.errors import IntegrationError
from instahide.integrations.dataloader.batch_fields import BatchFields
from instahide.integrations.dataloader.other_images import require_no_other_images

COUNT, SIDE = 5, 12
IMAGES = torch.randn(COUNT, 3, SIDE, SIDE)
LABELS = torch.arange(COUNT) % 3
FIELDS = BatchFields(("image",), ("label",))


def file(image: Tensor, kind: str) -> bytes:
    into = io.BytesIO()
    pil(image).save(into, kind)
    return into.getvalue()


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.mul(40).add(128).clamp(0, 255).byte().permute(1, 2, 0).numpy())


def objects(values: list[Any]) -> Any:
    made = np.empty(len(values), object)
    made[:] = values
    return made


class Slotted:
    __slots__ = ("raw",)

    def __init__(self, raw: object) -> None:
        self.raw = raw


#: An image in a form in which a data set or a collate function may hold it.
FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "of another size": lambda x: x[:, :7, :7].clone(),
    "channels last": lambda x: x.permute(1, 2, 0),
    "channel": lambda x: x[0].clone(),
    "flattened": lambda x: x.flatten(),
    "flattened, grey": lambda x: x.mean(0).flatten(),
    "pixels as rows": lambda x: x.reshape(3, -1).T,
    "channels by name": lambda x: dict(zip("rgb", x.flatten(1), strict=True)),
    "nested lists": lambda x: x.mean(0).tolist(),
    "flat list": lambda x: x.flatten().tolist(),
    "lists of channels": lambda x: x.tolist(),
    "mask": lambda x: x[0] > 0,
    "PIL": pil,
    "small PIL": lambda x: pil(x).resize((3, 3)),
    "PNG": lambda x: file(x, "PNG"),
    "JPEG": lambda x: file(x[:, :2, :2], "JPEG"),
    "WebP": lambda x: file(x, "WEBP"),
    "file": lambda x: io.BytesIO(file(x, "PNG")),
    "file as array": lambda x: np.frombuffer(file(x, "PNG"), np.uint8),
    "file as tensor": lambda x: torch.tensor(list(file(x, "JPEG")), dtype=torch.uint8),
    "base64": lambda x: base64.b64encode(file(x, "PNG")).decode(),
    "pixels as bytes": lambda x: x.numpy().tobytes(),
}

Named = namedtuple("Named", ["raw", "id"])

#: Where the images, each in one of the forms, may be in a field.
HOLDERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": lambda each: each,
    "tuple": tuple,
    "set-like": deque,
    "dicts": lambda each: [{"raw": one, "id": place} for place, one in enumerate(each)],
    "tuples": lambda each: [(one, place) for place, one in enumerate(each)],
    "named tuples": lambda each: [Named(one, 1) for one in each],
    "objects": lambda each: [SimpleNamespace(raw=one) for one in each],
    "slots": lambda each: [Slotted(one) for one in each],
    "object array": objects,
    "object arrays": lambda each: {"raw": objects([[one] for one in each])},
    "deep": lambda each: {"a": ({"b": [[{"c": one}] for one in each]}, "text")},
    "mapping": lambda each: UserDict(raw=each),
    "namespace": lambda each: SimpleNamespace(inner=SimpleNamespace(raw=each)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_images_in_any_form_and_any_holder_are_found(form: str, holder: str) -> None:
    other = HOLDERS[holder]([FORMS[form](image) for image in IMAGES])
    batch = {"image": IMAGES, "label": LABELS, "other": other}
    with pytest.raises(IntegrationError, match=r"Besides the images \['image'\] .* \['other'\]"):
        require_no_other_images(batch, FIELDS)


STACKED: list[Callable[[Tensor], Any]] = [
    lambda x: x.flatten(),
    lambda x: x.flatten(1),
    lambda x: x.mean(1).flatten(1),
    lambda x: x.permute(0, 2, 3, 1).reshape(-1, 3),
    lambda x: {0: x.reshape(2, -1)},
    lambda x: dict(zip("rgb", x.permute(1, 0, 2, 3).flatten(2), strict=True)),
    lambda x: [row.flatten(1) for row in x.mean(1).unbind(1)],
    lambda x: SimpleNamespace(raw=x.clone()),
    lambda x: x[0, 0],
    lambda x: pil(x[0]),
    lambda x: np.array([file(each, "PNG") for each in x]),
    lambda x: default_collate([each.mean(0).tolist() for each in x]),
]


@pytest.mark.parametrize("place", range(len(STACKED)))
def test_images_in_one_object_are_found(place: int) -> None:
    batch = {"image": IMAGES, "label": LABELS, "other": STACKED[place](IMAGES)}
    with pytest.raises(IntegrationError, match=r"\['other'\]"):
        require_no_other_images(batch, FIELDS)


@dataclass
class Computed:
    image: Tensor
    label: Tensor

    def __post_init__(self) -> None:
        self.raw = self.image if self.label[0] else self.image.clone()


class WithAttribute(dict[str, Any]):
    """A copy has the same attributes."""


class Itself(dict[str, Any]):
    """Its entries are its attributes; those of a copy are not replaced with the entries."""

    def __init__(self, **entries: Any) -> None:
        super().__init__(**entries)
        self.__dict__ = self


def attribute(same: bool) -> Any:
    batch = WithAttribute(image=IMAGES, label=LABELS)
    batch.raw = IMAGES if same else IMAGES.clone()  # type: ignore[attr-defined]
    return batch


@pytest.mark.parametrize(
    "batch",
    [
        Computed(IMAGES, LABELS),
        Computed(IMAGES, LABELS + 1),
        attribute(False),
        attribute(True),
        Itself(image=IMAGES, label=LABELS),
        {"image": IMAGES, "label": LABELS, "other": IMAGES},
    ],
)
def test_attributes_that_a_copy_of_the_batch_keeps_are_found(batch: Any) -> None:
    with pytest.raises(IntegrationError, match="Besides the images"):
        require_no_other_images(batch, FIELDS)


@pytest.mark.slow
@given(st.integers(1, 4), st.data())
def test_any_split_of_the_pixels_into_parts_is_found(parts: int, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(1, SIDE * SIDE - 1), max_size=parts, unique=True))
    rows = IMAGES.mean(1).flatten(1)
    pieces = rows.tensor_split(sorted(cuts), dim=1)
    by_item = [[piece[item] for piece in pieces] for item in range(COUNT)]
    for other in (pieces, by_item, [[each.tolist() for each in item] for item in by_item]):
        with pytest.raises(IntegrationError):
            require_no_other_images({"image": IMAGES, "label": LABELS, "x": other}, FIELDS)


KEPT: list[Any] = [
    ["a/name.png"] * COUNT,
    [b"a/name.png"] * COUNT,
    np.array(["a name"] * COUNT),
    np.array(["a name"] * COUNT, object),
    ["a long text " * 100] * COUNT,
    [{"id": place, "box": [1, 2, 3, 4], "name": "x", "none": None} for place in range(COUNT)],
    [{"boxes": torch.zeros(place, 4), "labels": torch.zeros(place)} for place in range(COUNT)],
    [SimpleNamespace(box=np.zeros(4), id=np.int64(3))] * COUNT,
    {"affine": torch.zeros(COUNT, 4, 4), "shape": torch.zeros(COUNT, 3), "spacing": (1.0, 2.0)},
    torch.zeros(COUNT, SIDE * SIDE - 1, dtype=torch.int64),
    torch.zeros(COUNT, 6, 4),
    [list(range(SIDE * SIDE - 1))] * COUNT,
    {f"class {number}": number for number in range(5000)},
    torch.float32,
    LABELS,
    object(),
]


@pytest.mark.parametrize("place", range(len(KEPT)))
def test_small_metadata_is_kept(place: int) -> None:
    for batch in (
        {"image": IMAGES, "label": LABELS, "other": KEPT[place]},
        UserDict({"image": IMAGES, "label": LABELS, "other": KEPT[place]}),
        {"image": IMAGES.numpy(), "label": LABELS, "other": {"deep": (KEPT[place],)}},
    ):
        require_no_other_images(batch, FIELDS)


def test_a_batch_of_two_is_no_list_of_two_items() -> None:
    batch = (IMAGES[:2], LABELS[:2], {"boxes": torch.zeros(2, 6, 4)})
    require_no_other_images(batch[:2], BatchFields((0,), (1,)))
    require_no_other_images(batch, BatchFields((0,), (1,)))
    require_no_other_images(((IMAGES[:2], batch[2]), LABELS[:2]), BatchFields((0, 0), (1,)))


def test_fields_beside_the_images_are_counted_one_by_one() -> None:
    tokens = torch.zeros(COUNT, 80)
    batch = {"in": {"image": IMAGES, "tokens": tokens, "mask": tokens.clone()}, "label": LABELS}
    require_no_other_images(batch, BatchFields(("in", "image"), ("label",)))


class Rows(Dataset[Any]):
    """Rows as Hugging Face's `datasets` gives them: with the stored image as nested lists."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        stored = IMAGES[index, 0].tolist()
        return {"pixel_values": IMAGES[index], "label": index % 3, "stored": stored}


def test_a_loader_of_such_rows_is_refused() -> None:
    with pytest.raises(InstaHideError, match=r"Besides .*\['stored'\]"):
        next(iter(encode_loader(DataLoader(Rows(), COUNT), Scheme.inside(2), classes=3)))

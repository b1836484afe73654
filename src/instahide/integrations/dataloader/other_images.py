"""A search for images in a batch besides those that are encrypted, in fields of any kind."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from instahide.data.readers.color_modes import is_pil_image
from instahide.errors import IntegrationError
from instahide.integrations.dataloader.batch_fields import (
    BatchFields,
    Leaf,
    get_field,
    get_leaf,
    path_text,
    replace_field,
)

#: First bytes of PNG, JPEG, GIF, TIFF and JPEG 2000 files, and of compressed ones such as NIfTI.
_SIGNATURES = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"\x1f\x8b",
)  # fmt: skip
#: Bytes at another place of WebP, HEIF or AVIF, and DICOM files.
_MARKS = {8: b"WEBP", 4: b"ftyp", 128: b"DICM"}
#: First characters of images as text: data URLs, and PNG and JPEG files in base64.
_TEXTS = ("data:image/", "iVBORw0KGgo", "/9j/4")

_Bytes = (bytes, bytearray, memoryview, io.BytesIO)
_Number = (int, float, complex, np.number, np.bool)


class _Found(NamedTuple):
    """What may be images, and where it is in the batch."""

    where: str
    what: str


class _Held(NamedTuple):
    """A value in a field; ``listed``: whether it is in a list with an entry for each image."""

    where: str
    value: object
    listed: bool


def require_no_other_images(batch: object, fields: BatchFields) -> None:
    """Check that ``batch`` has no images but those of ``fields``; others would not be encrypted.

    Images are searched for in tensors, arrays, lists of numbers, encoded files and attributes of
    objects. A field with H * W numbers or more for each item may be images, in any shape.

    Raises:
        IntegrationError: something in the batch may be images.
    """
    images, labels = get_leaf(batch, fields.image), get_leaf(batch, fields.label)
    if not len(images):
        return
    rest = batch
    # What is left when images and labels are replaced, also in attributes of a copied batch.
    for path in (fields.image, fields.label):
        rest = replace_field(rest, path, torch.zeros(len(images)))
    holders = [get_field(rest, fields.image[:end]) for end in range(len(fields.image))]
    found = _Search(images, labels, holders).first(rest)
    if found is not None:
        raise IntegrationError(
            f"Besides the images {path_text(fields.image)} the batch holds {found.where}, "
            f"{found.what}, which may be images too and would stay as it is.",
            "Leave it out of the batch, in the data set or in the collate function.",
        )


class _Search:
    """A search of the rest of a batch, whose ``images`` and ``labels`` are replaced.

    Args:
        images: the images that are encrypted.
        labels: the labels, which may have a second name.
        holders: the containers that hold the images. Their other entries are fields.
    """

    def __init__(self, images: Leaf, labels: Leaf, holders: list[object]) -> None:
        self._count = len(images)
        self._size = tuple(images.shape[-2:])
        self._holders = {id(holder) for holder in holders}
        # Keeps objects alive, so that their IDs stay unique.
        self._seen: dict[int, object] = {id(labels): labels}

    def first(self, rest: object) -> _Found | None:
        """The first that may be images in ``rest``."""
        found = (self._in_field(*field) for field in self._fields("", rest))
        return next((each for each in found if each is not None), None)

    def _fields(self, where: str, value: object) -> Iterator[tuple[str, object]]:
        if id(value) not in self._holders:
            yield where, value
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            for step, child in _children(value):
                yield from self._fields(where + step, child)

    def _in_field(self, where: str, field: object) -> _Found | None:
        numbers = 0
        for held in self._values(_Held(where, field, listed=False)):
            if self._shows_image(held):
                return _Found(held.where, _described(held.value))
            each, more = math.prod(self._size), _numbers(held.value)
            if more >= (each if held.listed else self._count * each):
                return _Found(held.where, _described(held.value))
            if (numbers := numbers + more) >= self._count * each:
                return _Found(where, f"at least {each} numbers for each item")
        return None

    def _values(self, held: _Held) -> Iterator[_Held]:
        """``held`` and all that is in it, each once."""
        value = held.value
        if value is None or isinstance(value, (_Number, type, ModuleType)):
            return
        if not isinstance(value, str):
            if id(value) in self._seen:
                return
            self._seen[id(value)] = value
        yield held
        listed = held.listed or self._is_list_of_items(value)
        for step, child in _children(value):
            yield from self._values(_Held(held.where + step, child, listed))

    def _is_list_of_items(self, value: object) -> bool:
        if isinstance(value, (Mapping, Tensor)):
            return False
        return isinstance(value, (Collection, np.ndarray)) and _length(value) == self._count

    def _shows_image(self, held: _Held) -> bool:
        """Whether it is a stack of images or a single image, by its type, its shape or its bytes.

        One in another shape is told by its number of values only.
        """
        value = held.value
        if isinstance(value, str):
            return len(value) > 99 and value.startswith(_TEXTS)
        if isinstance(value, _Bytes):
            return _is_file(_content(value))
        leaf = _leaf(value)
        if leaf is None:
            return _is_pil(value)
        if leaf.ndim == 2 and len(leaf) != self._count and tuple(leaf.shape) == self._size:
            return True
        if leaf.ndim == 3 and not held.listed:
            return self._size in (tuple(leaf.shape[-2:]), tuple(leaf.shape[:2]))
        return leaf.ndim >= 3 or _is_file(_first_bytes(leaf))


def _children(value: object) -> Iterator[tuple[str, object]]:
    """All that ``value`` holds, each with the code that reaches it: entries, then attributes."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", value[key]) for key in value)
    elif is_dataclass(value):
        names = [each.name for each in dataclass_fields(value)]
        yield from ((f"[{name!r}]", getattr(value, name, None)) for name in names)
    elif isinstance(value, np.ndarray):
        # Objects, records or bytes.
        if value.dtype.kind in "OSV":
            yield from ((f"[{place}]", each) for place, each in enumerate(value.flatten().tolist()))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from ((f"[{name!r}]", getattr(value, name)) for name in value._fields)
    elif isinstance(value, Collection) and not isinstance(value, (str, *_Bytes, Tensor)):
        yield from ((f"[{place}]", each) for place, each in enumerate(value))
    if not _is_pil(value):
        yield from ((f".{name}", each) for name, each in _attributes(value).items())


def _attributes(value: object) -> dict[str, object]:
    """The attributes in the ``__dict__`` and the slots of ``value``."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _leaf(value: object) -> Leaf | None:
    """``value`` as a tensor or array, also of another library; None if it is neither."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value
    if not hasattr(type(value), "__array__") or isinstance(value, Mapping) or _is_pil(value):
        return None
    try:
        return np.asarray(value)
    except Exception:  # code of another library, such as of an array on another device
        return None


def _is_pil(value: object) -> bool:
    # Some mappings answer to any attribute.
    return is_pil_image(value) and not isinstance(value, Mapping)


def _numbers(value: object) -> int:
    """How many numbers it holds directly; of a mapping none, since pixels have no names."""
    if isinstance(value, _Bytes):
        return len(_content(value))
    leaf = _leaf(value)
    if leaf is not None:
        numeric = isinstance(leaf, Tensor) or leaf.dtype.kind in "biufc"
        return _size(leaf) if numeric else 0
    if isinstance(value, Collection) and not isinstance(value, (str, Mapping)):
        return sum(isinstance(each, _Number) for each in value)
    return 0


def _size(leaf: Leaf) -> int:
    return leaf.numel() if isinstance(leaf, Tensor) else leaf.size


def _length(value: object) -> int | None:
    try:
        return len(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _content(value: object) -> memoryview:
    assert isinstance(value, _Bytes)  # noqa: S101
    held = value.getbuffer() if isinstance(value, io.BytesIO) else memoryview(value)
    return held.cast("B") if held.contiguous else memoryview(held.tobytes())


def _is_file(content: memoryview) -> bool:
    """Whether it begins as the file of an image."""
    start = bytes(content[:132])
    marked = any(start[place : place + len(mark)] == mark for place, mark in _MARKS.items())
    return marked or start.startswith(_SIGNATURES)


def _first_bytes(leaf: Leaf) -> memoryview:
    """The first bytes of an array of bytes (length,) or (n, length); of another one none."""
    if leaf.dtype not in (torch.uint8, np.uint8) or leaf.ndim not in (1, 2) or not _size(leaf):
        return memoryview(b"")
    row = leaf if leaf.ndim == 1 else leaf[0]
    return memoryview(bytes(row[:132].tolist()))


def _described(value: object) -> str:
    if isinstance(value, str):
        return "an image as text"
    if isinstance(value, _Bytes):
        return f"{len(_content(value))} bytes"
    leaf = _leaf(value)
    if leaf is None:
        return "an image of Pillow" if _is_pil(value) else f"of type {type(value).__name__}"
    if isinstance(leaf, Tensor) and leaf.is_nested:
        return "a nested tensor"
    return f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}"

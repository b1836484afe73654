"""Finding and replacing the images and labels in a batch of any structure."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, fields, is_dataclass
from operator import index
from typing import Protocol, SupportsIndex, TypeAlias, TypeGuard, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data.items import IMAGE_KEYS, LABEL_KEYS
from instahide.data.labels import Task
from instahide.data.readers.color_modes import is_pil_image
from instahide.errors import DataError, IntegrationError

#: Required fields of a batch, by kind.
WANTED = {
    "image": "floats of shape (n, C, H, W), (n, C, D, H, W) or (n, H, W)",
    "label": "whole numbers of shape (n,) or floats (n, classes)",
    "target": "numbers of shape (n,) or (n, columns)",
}

_REMEDIES = {
    "image": "Let transform and collate make such a field: normalized images, stacked.",
    "label": "Let data set and collate make such a field. If labels are several findings or "
    "measured values, pass `task='multi-label'` or `task='regression'`.",
    "target": "Let data set and collate make such a field: a row of numbers for each item.",
}

#: The path of a field: keys of mappings, names of attributes, indices of sequences.
Path: TypeAlias = tuple[Hashable, ...]
Leaf: TypeAlias = Tensor | NDArray[np.generic]
Scalar = TypeVar("Scalar", bound=np.generic)


class _NamedTuple(Protocol):
    _fields: tuple[str, ...]

    def _replace(self, **changes: object) -> object: ...


class _Indexable(Protocol):
    def __getitem__(self, step: Hashable, /) -> object: ...


@dataclass(frozen=True)
class BatchFields:
    """The paths to the images and to the labels of a batch."""

    image: Path
    label: Path

    @classmethod
    def find(
        cls,
        batch: object,
        count: int,
        image: Path | None,
        label: Path | None,
        task: Task = "single-label",
    ) -> BatchFields:
        """Find the ``count`` images and labels in ``batch``, unless their paths are given.

        Images are the only floats (count, C, H, W) or (count, C, D, H, W), or else (count, H, W).
        Labels are the only integers (count,) or floats (count, classes); of another task than
        single-label the only numbers (count,) or (count, columns). If there are several such
        fields, the one with a usual name is taken.

        Raises:
            IntegrationError: no field fits, or more than one.
        """
        if image is None:
            image = find_images(batch, count)
        if label is None:
            found = dict(leaves(batch, ()))
            classes = task == "single-label"
            like = _like_labels if classes else _like_targets
            labels = [path for path, leaf in found.items() if like(leaf, count)]
            label = _only("label" if classes else "target", labels, LABEL_KEYS, found)
        return cls(image, label)

    def put(self, batch: object, images: Tensor, labels: Tensor) -> object:
        """A copy of ``batch`` with ``images`` and ``labels``; arrays are replaced by arrays.

        Images get the shape of those in the batch, which may lack the dimension of the channel.
        """
        images = images.reshape(tuple(get_leaf(batch, self.image).shape))
        for path, value in ((self.image, images), (self.label, labels)):
            array = isinstance(get_field(batch, path), np.ndarray)
            batch = replace_field(batch, path, value.numpy() if array else value)
        return batch


def find_images(batch: object, count: int) -> Path:
    """The path of the ``count`` images in ``batch``.

    Raises:
        InstaHideError: no field fits, or more than one.
    """
    found = dict(leaves(batch, ()))
    return _only("image", _images_of(found, count), IMAGE_KEYS, found)


def image_leaves(batch: object, image: Path | None, count: int) -> list[Leaf]:
    """The fields of ``batch`` that may be its ``count`` images: the one at ``image``, if given.

    Raises:
        InstaHideError: there is no tensor or array at ``image``.
    """
    if image is not None:
        leaf = get_leaf(batch, image)
        if leaf.ndim < 3:
            raise DataError(
                f"The images {path_text(image)} of a batch are {_described(leaf)}, and not "
                f"{WANTED['image']}.",
                _REMEDIES["image"],
            )
        return [leaf]
    found = dict(leaves(batch, ()))
    return [found[path] for path in _images_of(found, count)]


def with_channel(images: NDArray[Scalar]) -> NDArray[Scalar]:
    """``images`` (n, H, W) as (n, 1, H, W); those with channels as they are."""
    return images[:, None] if images.ndim == 3 else images


def field_paths(fields: object) -> tuple[Path | None, Path | None]:
    """The paths of the images and of the labels that ``fields`` names, as of `encode_loader`.

    Raises:
        IntegrationError: they are not two.
    """
    if not isinstance(fields, (tuple, list)) or len(fields) != 2:
        raise IntegrationError(
            f"fields = {fields!r:.80} does not name two fields.",
            "Name the images and the labels, as in `fields=('image', 'label')`; None for a field "
            "that is to be found.",
        )
    image, label = fields
    return as_path(image), as_path(label)


def as_path(field: Hashable) -> Path | None:
    """A key, an index, or a tuple of these, as a path."""
    return field if field is None or isinstance(field, tuple) else (field,)


def get_field(batch: object, path: Path) -> object:
    """The field of ``batch`` at ``path``.

    Raises:
        IntegrationError: there is no such field.
    """
    try:
        for step in path:
            batch = _child(batch, step)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise IntegrationError(
            f"The batch, a {type(batch).__name__}, has no field {path_text(path)}.",
            "Name the field as it is reached in a batch: a key, an index, or a tuple of these.",
        ) from error
    return batch


def get_leaf(batch: object, path: Path) -> Leaf:
    """The tensor or array of ``batch`` at ``path``.

    Raises:
        IntegrationError: there is no such field.
        DataError: it is something else.
    """
    leaf = get_field(batch, path)
    if isinstance(leaf, (Tensor, np.ndarray)):
        return leaf
    raise DataError(
        f"The field of the batch is a {type(leaf).__name__}, not a tensor.",
        "Name the field that holds the stacked tensor, by `fields=` of a loader or `image=` of an "
        "account.",
    )


def replace_field(batch: object, path: Path, value: object) -> object:
    """A copy of ``batch`` with ``value`` at ``path``."""
    if not path:
        return value
    step, *rest = path
    return _with(batch, step, replace_field(_child(batch, step), tuple(rest), value))


def path_text(path: Path) -> str:
    """``path`` as Python indices, such as ``['inputs']['image']``."""
    return "".join(f"[{step!r}]" for step in path)


def _is_named_tuple(batch: object) -> TypeGuard[_NamedTuple]:
    return isinstance(batch, tuple) and hasattr(batch, "_fields")


def _is_indexable(batch: object) -> TypeGuard[_Indexable]:
    return hasattr(batch, "__getitem__")


def _child(batch: object, step: Hashable) -> object:
    if isinstance(step, str) and (is_dataclass(batch) or hasattr(batch, "_fields")):
        return getattr(batch, step)
    if _is_indexable(batch):
        return batch[step]
    raise TypeError(f"a {type(batch).__name__} has no fields")


def _with(batch: object, step: Hashable, new: object) -> object:
    """A copy of ``batch`` with ``new`` as its child ``step``."""
    if _is_named_tuple(batch):
        name = batch._fields[step] if isinstance(step, SupportsIndex) else str(step)
        return batch._replace(**{name: new})
    if isinstance(batch, (tuple, list)) and isinstance(step, SupportsIndex):
        place = index(step) % len(batch)
        return type(batch)([*batch[:place], new, *batch[place + 1 :]])
    if isinstance(batch, Mapping) and not isinstance(batch, MutableMapping):
        return {**batch, step: new}
    clone = copy.copy(batch)
    if isinstance(clone, MutableMapping):
        clone[step] = new
    else:
        # Bypasses the __setattr__ of a frozen dataclass; the clone is not shared yet.
        object.__setattr__(clone, str(step), new)
    return clone


def leaves(batch: object, path: Path) -> Iterator[tuple[Path, Leaf]]:
    """All tensors and arrays in ``batch`` with their paths, which begin with ``path``."""
    if isinstance(batch, (Tensor, np.ndarray)):
        yield path, batch
        return
    if is_pil_image(batch):
        # Only its shape is needed.
        yield path, np.empty((batch.height, batch.width, len(batch.getbands())), np.uint8)
        return
    steps: Iterable[Hashable] = ()
    if isinstance(batch, Mapping):
        steps = batch
    elif is_dataclass(batch):
        steps = [each.name for each in fields(batch)]
    elif _is_named_tuple(batch):
        steps = batch._fields
    elif isinstance(batch, (tuple, list)):
        steps = range(len(batch))
    for step in steps:
        yield from leaves(_child(batch, step), (*path, step))


def _is_float(leaf: Leaf) -> bool:
    return leaf.is_floating_point() if isinstance(leaf, Tensor) else leaf.dtype.kind == "f"


def _is_whole(leaf: Leaf) -> bool:
    if isinstance(leaf, Tensor):
        return not (leaf.is_floating_point() or leaf.is_complex() or leaf.dtype == torch.bool)
    return leaf.dtype.kind in "iu"


def _images_of(found: Mapping[Path, Leaf], count: int) -> list[Path]:
    """The paths of fields that may be ``count`` images; grey ones only if there are no others."""
    floats = [
        path
        for path, leaf in found.items()
        if leaf.ndim > 2 and len(leaf) == count and _is_float(leaf)
    ]
    with_channels = [path for path in floats if found[path].ndim in (4, 5)]
    return with_channels or [path for path in floats if found[path].ndim == 3]


def _like_labels(leaf: Leaf, count: int) -> bool:
    fits = leaf.ndim == 1 or tuple(leaf.shape[1:]) == (1,)
    fits = (fits and _is_whole(leaf)) or (leaf.ndim == 2 and _is_float(leaf))
    return fits and len(leaf) == count


def _like_targets(leaf: Leaf, count: int) -> bool:
    fits = leaf.dtype in (torch.bool, np.bool) or _is_whole(leaf) or _is_float(leaf)
    return fits and leaf.ndim in (1, 2) and len(leaf) == count


def _only(
    kind: str, found: list[Path], names: tuple[str, ...], leaves: Mapping[Path, Leaf]
) -> Path:
    """The one path, or the only one that ends in one of ``names``."""
    named = [path for path in found if path and path[-1] in names]
    for candidates in (named, found):
        if len(candidates) == 1:
            return candidates[0]
    listed = ", ".join(f"{path_text(path)} {_described(leaf)}" for path, leaf in leaves.items())
    raise IntegrationError(
        f"The batch has {len(found) or 'no'} fields that may be its {kind}s, {WANTED[kind]}; "
        f"it holds {listed or 'no tensors'}.",
        "Say which with `fields=(image, label)`: each a key, an index, or a tuple of these."
        if found
        else _REMEDIES[kind],
    )


def _described(leaf: Leaf) -> str:
    return f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}"

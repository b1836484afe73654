"""Inference of the normalization by which a data set's transforms end.

Steps are recognized by their class names, so that no library is imported: `Normalize` of
torchvision, Albumentations and Kornia, MONAI's `NormalizeIntensity`, and image processors of
Hugging Face. Attributes ``mean`` and ``std`` alone do not suffice: MONAI's `RandGaussianNoise` has
them for another purpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from instahide.data.normalization.normalization import Normalization, compose_normalizations
from instahide.errors import DataError

#: Attributes that hold the transforms of a data set; the first that exists is used.
ATTRIBUTES = ("transform", "transforms", "image_processor", "processor", "feature_extractor")
#: Steps that move values, fill in constants or change types, but do not scale values. Names of
#: MONAI, whose dictionary versions end in d, and of the other libraries.
_MOVES = re.compile(
    "Flip|Crop|Rotat|Resize|Resample|Affine|Zoom|Pad|Transpose|Perspective|Elastic|Erasing|Dropout"
    "|Cutout|ToTensor|ToImage|ToPureTensor|ToDtype|ConvertImageDtype|EnsureType|EnsureChannelFirst"
    "|AsChannelFirst|CastToType|Identity|NoOp|Permute|Squeeze|Orientation|Spacing|MaxSize"
    "|SelectItems|DeleteItems|CopyItems"
)
#: Words in the names of steps that change values.
_CHANGES = re.compile(
    "Intensity|Noise|Jitter|Contrast|Bright|Normal|Standard|Blur|Mix|Mosaic|Scale"
)
#: Collections that apply their steps to some images only, at random.
_SOMETIMES = re.compile("^(Random(Apply|Choice|Order)|OneOf|OneOrOther|SomeOf)$")

#: Mean and standard deviation of a step, in the unit of its input.
_Raw = tuple[NDArray[np.float64], NDArray[np.float64]]


def infer_normalization(dataset: object) -> Normalization | None:
    """The normalization that the transforms of ``dataset`` apply; None if none is found.

    A data set that wraps another one as ``dataset`` applies the transforms of that one first. Steps
    before the first normalization may do anything. Several normalizations are composed.

    Raises:
        DataError: a step after a normalization may change values, or parts of a concatenation are
            normalized differently.
    """
    parts = getattr(dataset, "datasets", None)
    if isinstance(parts, (list, tuple)) and parts:
        return _common([infer_normalization(part) for part in parts])
    known = None
    held = getattr(dataset, "dataset", None)
    if held is not None:
        known = infer_normalization(held)
    for step in _steps(_transform(dataset)):
        raw = _raw_moments(step)
        if raw is not None:
            then = Normalization.of(*raw) if known is None else Normalization.of_values(*raw)
            known = then if known is None else compose_normalizations(known, then)
        elif known is not None and not _only_moves(step):
            raise DataError(
                f"After a normalization the transform has a {_kind(step).__name__}, which may "
                "change values, so the normalization of the images is unknown.",
                "Put it before the normalization. If it leaves values as they are, give mean= and "
                "std=, which are compared with the images.",
            )
    return known


def _common(found: list[Normalization | None]) -> Normalization | None:
    if any(each != found[0] for each in found):
        listed = "; ".join(sorted({str(each or "unknown") for each in found}))
        raise DataError(
            f"The parts of the data set are normalized differently: {listed}.",
            "Normalize all parts with one mean and standard deviation.",
        )
    return found[0]


def _transform(dataset: object) -> object:
    found = (getattr(dataset, name, None) for name in ATTRIBUTES)
    return next((each for each in found if each is not None), None)


def _steps(transform: object) -> Iterator[object]:
    """The steps of a transform in order; a collection that runs at random is a single step."""
    if transform is None:
        return
    inner = _inner(transform)
    if inner is None or _is_random(transform):
        yield transform
        return
    for step in inner:
        yield from _steps(step)


def _inner(transform: object) -> list[object] | None:
    """The steps of a collection or wrapper; None for a single step."""
    name = _kind(transform).__name__
    if isinstance(transform, (list, tuple)):
        return list(transform)
    if name == "StandardTransform" and hasattr(transform, "transform"):
        return [transform.transform]
    if hasattr(transform, "normalizer"):
        return [transform.normalizer]
    if hasattr(transform, "image_processor"):
        return [transform.image_processor]
    for attribute in ("transforms", "children"):
        held = getattr(transform, attribute, None)
        if callable(held) and name.endswith("Sequential"):
            held = held()
        if isinstance(held, Iterable) and not isinstance(held, (str, Mapping)):
            return list(held)
    return None


def _kind(step: object) -> type:
    """The class of a step, which may itself be a class with the values as attributes."""
    return step if isinstance(step, type) else type(step)


def _is_random(transform: object) -> bool:
    chance = getattr(transform, "p", 1.0)
    sometimes = isinstance(chance, (int, float)) and chance < 1
    return sometimes or bool(_SOMETIMES.search(_kind(transform).__name__))


def _only_moves(step: object) -> bool:
    inner = _inner(step)
    if inner is not None:
        return all(_only_moves(each) for each in inner)
    name = _kind(step).__name__
    return bool(_MOVES.search(name)) and not _CHANGES.search(name)


def _raw_moments(step: object) -> _Raw | None:
    """The mean and std of ``step``, if it is a normalization by constants."""
    names = {base.__name__ for base in _kind(step).__mro__}
    if _is_random(step):
        return None
    if hasattr(step, "image_mean") and hasattr(step, "image_std"):
        return _of_image_processor(step)
    if isinstance(step, Mapping):
        return _pair(step.get("mean"), step.get("std"))
    if "NormalizeIntensity" in names:
        if getattr(step, "nonzero", False):
            return None
        return _pair(getattr(step, "subtrahend", None), getattr(step, "divisor", None))
    # The preprocessing presets of torchvision also end in a normalization.
    if names & {"Normalize", "ImageClassification"}:
        # Albumentations: "image" and "min_max" use statistics of each image.
        if getattr(step, "normalization", "standard") != "standard":
            return None
        flags = getattr(step, "flags", None)
        if isinstance(flags, Mapping) and "mean" in flags:
            return _pair(flags["mean"], flags.get("std"))
        return _pair(getattr(step, "mean", None), getattr(step, "std", None))
    return None


def _of_image_processor(step: object) -> _Raw | None:
    """(pixel * rescale_factor - image_mean) / image_std, each part of which is optional."""
    if getattr(step, "rescale_offset", False):
        return None
    normalizes = getattr(step, "do_normalize", True)
    pair = (
        _pair(getattr(step, "image_mean", None), getattr(step, "image_std", None))
        if normalizes
        else (np.zeros(1), np.ones(1))
    )
    factor = getattr(step, "rescale_factor", 1 / 255)
    if pair is None or not getattr(step, "do_rescale", True):
        return pair if normalizes else None
    return pair[0] / (255 * factor), pair[1] / (255 * factor)


def _pair(mean: object, std: object) -> _Raw | None:
    if mean is None or std is None:
        return None
    try:
        values = [np.asarray(each, np.float64).reshape(-1) for each in (mean, std)]
    except (TypeError, ValueError):
        return None
    count = max(len(each) for each in values)
    if any(len(each) not in (1, count) for each in values):
        return None
    return np.broadcast_to(values[0], count), np.broadcast_to(values[1], count)

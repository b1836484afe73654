"""Reading an item of a map-style data set: its image as an array, its label as a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from instahide.data.readers.color_modes import eight_bit, is_pil_image
from instahide.errors import DataError

IMAGE_KEYS = ("image", "img", "pixel_values")
LABEL_KEYS = ("label", "labels", "fine_label")


class MapDataset(Protocol):
    """A map-style data set, as those of torchvision, Hugging Face and MONAI: items by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


class Item(NamedTuple):
    """``pixels``: (C, H, W), uint8 or float32; ``label``: a class number."""

    pixels: NDArray[np.generic]
    label: int


def read_item(dataset: MapDataset, index: int) -> Item:
    """Item ``index`` of ``dataset``.

    Raises:
        DataError: the item cannot be read, or is not an image with a label.
    """
    try:
        item = dataset[index]
    except Exception as error:  # from the user's data set and transforms
        raise DataError(
            f"Item {index} cannot be read ({type(error).__name__}: {error}).",
            "Fix or remove it, or use workers=1 if the data set must not be shared by threads.",
        ) from error
    image, label = _parts(item, index)
    return Item(_pixels(image, index), class_number(label, index))


def class_number(label: object, index: int) -> int:
    """``label``, an integer or an array or tensor with one integer, as an int.

    Raises:
        DataError: ``label`` is anything else.
    """
    numbers = np.asarray(label)
    if numbers.size != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise DataError(
            f"The label of item {index} is not one whole number.",
            "Number the classes from 0, with a target transform for example.",
        )
    return int(numbers.reshape(-1)[0])


def _parts(item: object, index: int) -> tuple[object, object]:
    if isinstance(item, Mapping):
        images = [item[key] for key in IMAGE_KEYS if key in item]
        labels = [item[key] for key in LABEL_KEYS if key in item]
        if images and labels:
            return images[0], labels[0]
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise DataError(
        f"Item {index} is neither (image, label) nor a mapping with an image and a label.",
        f"Name them {' or '.join(IMAGE_KEYS)}, and {' or '.join(LABEL_KEYS)}.",
    )


def _pixels(image: object, index: int) -> NDArray[np.generic]:
    try:
        array, channels_lead = _as_array(image)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The image of item {index} cannot be used ({error}).",
            "Give a PIL image, 8-bit pixels, or float values.",
        ) from error
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and not channels_lead:
        array = array.transpose(2, 0, 1)
    volume = array.ndim == 4 and array.dtype.kind == "f"
    if not volume and (array.ndim != 3 or (array.dtype != np.uint8 and array.dtype.kind != "f")):
        raise DataError(
            f"The image of item {index} is {array.dtype} of shape {array.shape}.",
            "Give one image, of 8-bit pixels (H, W, C) or float values (C, H, W); or a volume of "
            "float values (C, D, H, W).",
        )
    if array.dtype == np.uint8:
        return array
    if not np.isfinite(array).all():
        raise DataError(
            f"The image of item {index} has values that are NaN or infinite.",
            "Look at its file and at what the transform divides by.",
        )
    return array.astype(np.float32)


def _as_array(image: object) -> tuple[NDArray[np.generic], bool]:
    """The image as an array, and whether its channels come first."""
    if is_pil_image(image):
        return np.asarray(eight_bit(image)), False
    if hasattr(image, "detach"):
        return _leading(np.asarray(image.detach().cpu().numpy()), tensor=True)
    return _leading(np.asarray(image), tensor=False)


def _leading(array: NDArray[np.generic], *, tensor: bool) -> tuple[NDArray[np.generic], bool]:
    # By convention, 8-bit arrays are (H, W, C), tensors and float arrays (C, H, W).
    if array.ndim != 3 or tensor or array.dtype != np.uint8:
        return array, True
    return array, array.shape[2] not in (1, 3) and array.shape[0] in (1, 3)

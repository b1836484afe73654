"""A view of a map-style data set that shows only its images, to compare their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instahide.data.dataset import ImageDataset
from instahide.data.duplicates.repeatable_transforms import RepeatableTransforms
from instahide.data.items import IMAGE_KEYS, MapDataset
from instahide.data.normalization.inference import infer_normalization
from instahide.errors import DataError


def image_view(
    dataset: MapDataset,
    *,
    image: object = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageDataset:
    """The images of ``dataset``, without labels and other parts of its items.

    Args:
        dataset: a data set whose items are images, tuples that begin with one, or mappings.
        image: position of the image in an item: a key, an index, or a tuple of these.
        mean: mean of pixel / 255 that float images were normalized by; by default inferred from
            the transforms of the data set.
        std: standard deviation, likewise.

    Raises:
        InstaHideError: an item cannot be read, or has no image there.
    """
    if mean is None and std is None and (inferred := infer_normalization(dataset)) is not None:
        mean, std = inferred.mean, inferred.std
    alone = _ImageView(dataset, image)
    # The constructor reads items, which must not change the state of the user's generators.
    with RepeatableTransforms(alone):
        return ImageDataset(alone, mean=mean, std=std, classes=("-", "+"))


class _ImageView:
    """Items (image, 0) of a data set."""

    def __init__(self, dataset: object, image: object) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(
                f"A {type(dataset).__name__} does not give its items by number, so that they "
                "cannot be counted.",
                "Give a map-style data set, which has __len__ and __getitem__; of a loader, its "
                "data set.",
            )
        self._dataset = dataset
        self._image = image

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[object, int]:
        item = self._dataset[index]
        if self._image is None:
            return _image_of(item, index), 0
        path = self._image if isinstance(self._image, tuple) else (self._image,)
        try:
            for key in path:
                item = item[key]
        except (KeyError, IndexError, TypeError) as error:
            raise DataError(
                f"Item {index} has nothing at image={self._image!r}.",
                "Name the key or the index of its image.",
            ) from error
        return item, 0


def _image_of(item: object, index: int) -> object:
    if isinstance(item, Mapping):
        found = [item[key] for key in IMAGE_KEYS if key in item]
        if not found:
            raise DataError(
                f"Item {index} has no {' or '.join(IMAGE_KEYS)}.",
                "Say by image= under which key its image is.",
            )
        return found[0]
    return item[0] if isinstance(item, (tuple, list)) and len(item) else item

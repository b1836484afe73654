"""Random crops of large photographs at random scales, and their number of SIFT key points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data.readers.image_file import decode
from instahide.data.readers.listing import image_files
from instahide.data.remote.downloads import local_copy
from instahide.errors import DataError, IntegrationError
from instahide.utils.optional_deps import requires_extra
from instahide.utils.parallel import parallel_map

#: Source name of the built-in photographs, which come with installed packages.
PHOTOS = "photos"

#: Short side in pixels to which a crop is resized before key points are counted, whatever the patch
#: size. On a patch of 32 x 32 SIFT finds only a few, and none would reach the paper's limit of 40.
SIFT_SIDE = 128

#: Photographs, not drawings, in which at least one crop in twelve has 40 key points.
COLOUR = {
    "skimage": (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "rocket.jpg",
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
}
GREY = {"skimage": ("brick.png", "camera.png", "coins.png", "grass.png", "gravel.png")}
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


class Place(NamedTuple):
    """The number of a photograph, and the top, left, height and width of a crop of it in pixels."""

    photo: int
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False, repr=False)
class PhotoCrops:
    """Public photographs in memory, from which random patches are cropped.

    The class holds no random generator. The crops used in training are secret, so the caller
    passes the random numbers: four per crop, uniform in [0, 1), for photograph, scale, top and
    left. Scales are log-uniform, from the size of a patch to the whole photograph.

    Attributes:
        photos: photographs, each (h, w, C) uint8 with the same C.
        height: height of a patch in pixels.
        width: width of a patch in pixels.

    Raises:
        DataError: there are no photographs, or one is smaller than a patch.

    Examples:
        >>> import numpy as np
        >>> from instahide import PhotoCrops
        >>> generator = np.random.default_rng(0)
        >>> photo = generator.integers(0, 256, (64, 96, 3), np.uint8)
        >>> crops = PhotoCrops((photo,), 8, 8)
        >>> crops.draw(generator.random((5, 4))).shape
        (5, 3, 8, 8)
    """

    photos: tuple[NDArray[np.uint8], ...]
    height: int
    width: int

    def __repr__(self) -> str:
        return f"PhotoCrops({len(self.photos)} photographs, {self.height} x {self.width})"

    def __post_init__(self) -> None:
        for number, photo in enumerate(self.photos):
            _check_size(photo, self.height, self.width, f"Photograph {number}")
        if not self.photos:
            raise DataError("There are no photographs.", "Give at least one.")

    @classmethod
    def open(cls, source: str | Path, shape: tuple[int, ...]) -> PhotoCrops:
        """Open the photographs in a folder, or the built-in `photos`, for patches of a shape.

        Args:
            source: a folder, which is searched recursively, its URL, or `photos`.
            shape: shape (C, H, W) of a patch.

        Raises:
            InstaHideError: there are no photographs, or one is damaged or smaller than a patch.
        """
        files = photo_files(source, shape[0])
        photos = parallel_map(lambda path: read_photo(path, shape), files)
        return cls(tuple(photos), *shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of a patch."""
        return self.photos[0].shape[2], self.height, self.width

    def draw(self, uniforms: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Patches (n, C, H, W) uint8 of the crops selected by ``uniforms`` (n, 4)."""
        patches = np.empty((len(uniforms), *self.shape), np.uint8)
        for patch, crop in zip(patches, self._crops(uniforms), strict=True):
            patch[:] = np.moveaxis(_resize(crop, self.height, self.width), 2, 0)
        return patches

    def keypoints(self, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """(n,) numbers of SIFT key points in the crops selected by ``uniforms`` (n, 4).

        Crops are resized to a short side of `SIFT_SIDE` pixels first.
        """
        short = min(self.height, self.width)
        height, width = (round(SIFT_SIDE * side / short) for side in (self.height, self.width))
        crops = self._crops(uniforms)
        return np.asarray([keypoints(_resize(crop, height, width)) for crop in crops], np.int64)

    @property
    def count(self) -> int:
        """About how many different crops there are."""
        return sum(self._count(*photo.shape[:2]) for photo in self.photos)

    def _count(self, height: int, width: int) -> int:
        largest = min(height / self.height, width / self.width)
        heights = range(self.height, max(self.height + 1, math.ceil(self.height * largest)))
        return sum(
            (height - side + 1) * (width - side * self.width // self.height + 1) for side in heights
        )

    def places(self, uniforms: NDArray[np.float64]) -> list[Place]:
        """The places of the crops selected by ``uniforms`` (n, 4); equal ones are one picture."""
        return [self._place(row) for row in uniforms]

    def _place(self, uniforms: NDArray[np.float64]) -> Place:
        which, scale, top, left = uniforms
        number = int(which * len(self.photos))
        photo = self.photos[number]
        largest = min(photo.shape[0] / self.height, photo.shape[1] / self.width)
        height, width = (int(side * largest**scale) for side in (self.height, self.width))
        y = int(top * (photo.shape[0] - height + 1))
        x = int(left * (photo.shape[1] - width + 1))
        return Place(number, y, x, height, width)

    def _crops(self, uniforms: NDArray[np.float64]) -> Iterator[NDArray[np.uint8]]:
        for number, y, x, height, width in self.places(uniforms):
            yield self.photos[number][y : y + height, x : x + width]


def keypoints(image: NDArray[np.uint8]) -> int:
    """The number of SIFT key points that OpenCV finds in an image (h, w, C) (Lowe, IJCV 2004)."""
    import cv2

    grey = image[:, :, 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return len(cv2.SIFT.create().detect(np.ascontiguousarray(grey), None))


def photo_files(source: str | Path, channels: int, *, skip_bad: bool = False) -> list[Path]:
    """The photographs in a folder, its subfolders or its URL, or the built-in `photos`.

    The built-in gray photographs are used only for patches of one channel: in color patches, their
    lack of color would reveal that they are public.

    Raises:
        InstaHideError: there are no photographs, OpenCV is missing, or ``channels`` is neither 1
            nor 3.
    """
    with requires_extra("OpenCV", "vision"):
        import cv2  # noqa: F401
    if channels not in (1, 3):
        raise DataError(
            f"Public patches must have 1 or 3 channels, but the images have {channels} channels.",
            "Use images of 1 or 3 channels, or a scheme without public images.",
        )
    if str(source) != PHOTOS:
        return image_files(Path(local_copy(source)), skip_bad=skip_bad)
    files = [
        path
        for package, names in [*COLOUR.items(), *(GREY.items() if channels == 1 else ())]
        for path in shipped_photos(package, names)
    ]
    if not files:
        raise IntegrationError(
            "The built-in photographs need scikit-image or scikit-learn; neither is installed.",
            "Install them with `pip install 'instahide[data]'`.",
        )
    return files


def read_photo(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a photograph as (h, w, C), for patches of ``shape`` (C, H, W).

    Raises:
        InstaHideError: the file is not a readable image, or is smaller than a patch.
    """
    import cv2

    channels, height, width = shape
    pixels = decode(path)
    _check_size(pixels, height, width, str(path))
    if channels == 1 and pixels.ndim == 3:
        pixels = _bytes(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    if channels == 3 and pixels.ndim == 2:
        return np.stack([pixels] * 3, axis=2)
    return np.atleast_3d(pixels)


def _check_size(photo: NDArray[np.uint8], height: int, width: int, name: str) -> None:
    if photo.shape[0] < height or photo.shape[1] < width:
        raise DataError(
            f"{name}, of {photo.shape[1]} x {photo.shape[0]} pixels, is smaller than a patch "
            f"of {width} x {height}.",
            "Use smaller patches (`patch=`), remove the photograph, or use `skip_bad=True`.",
        )


def _resize(crop: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    import cv2

    shrinks = height < crop.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.atleast_3d(_bytes(cv2.resize(crop, (width, height), interpolation=method)))


def _bytes(pixels: object) -> NDArray[np.uint8]:
    return np.asarray(pixels, np.uint8)


def shipped_photos(package: str, names: tuple[str, ...]) -> list[Path]:
    """The photographs ``names`` that an installed ``package`` contains."""
    # Located without an import, so that no code of the packages runs.
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    paths = [Path(folder) / FOLDERS[package] / name for folder in folders or () for name in names]
    return [path for path in paths if path.is_file()]

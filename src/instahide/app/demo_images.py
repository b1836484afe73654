"""The images of the web app: crops of built-in photographs, private and public ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.data.public.crops import PHOTOS, PhotoCrops, photo_files, read_photo
from instahide.data.readers.decoded import resize
from instahide.data.readers.image_file import decode
from instahide.errors import DataError, InstaHideError

#: Height and width in pixels of the images that are shown, and of those that are attacked.
SIDE, SMALL = 224, 24
#: Private images besides the chosen one, and public images of the two sizes.
OTHERS, PUBLIC, POOL = 15, 24, 2000

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, repr=False)
class DemoImages:
    """The images that a chosen image is mixed with; private and public photographs are disjoint.

    Attributes:
        choices: (3, SIDE, SIDE) built-in images to encrypt, by name.
        others: (OTHERS, 3, SIDE, SIDE) uint8, the other private images.
        public: (PUBLIC, 3, SIDE, SIDE) public images.
        pool: (POOL, 3, SMALL, SMALL) public images for an attack.
    """

    choices: Mapping[str, Pixels]
    others: Pixels
    public: ImageTable
    pool: ImageTable

    @classmethod
    def open(cls) -> DemoImages:
        """Crop the images from the built-in photographs.

        Raises:
            InstaHideError: the photographs or OpenCV are not installed.
        """
        files = photo_files(PHOTOS, 3)
        # Two photographs show the same scene; they are neighbours, and both become private.
        private, public = files[: len(files) // 2], files[len(files) // 2 :]
        return cls(
            {path.stem.replace("_", " "): square(path) for path in private},
            _crops(private, OTHERS, SIDE),
            ImageTable.from_arrays(_crops(public, PUBLIC, SIDE)),
            ImageTable.from_arrays(_crops(public, POOL, SMALL)),
        )

    def private(self, chosen: Pixels, side: int = SIDE) -> ImageTable:
        """A table of the chosen image, as row 0, and `others`; each image is its own class.

        Args:
            chosen: (3, SIDE, SIDE) uint8.
            side: height and width of the images in the table.
        """
        pixels = np.concatenate([chosen[None], self.others])
        if side != SIDE:
            pixels = resize(pixels, side)
        return ImageTable.from_arrays(pixels, np.arange(len(pixels)))


def square(path: Path) -> Pixels:
    """The centre square of an image file: (3, SIDE, SIDE) uint8.

    Raises:
        InstaHideError: the file is not an image, is damaged or too large.
    """
    pixels = np.broadcast_to(np.atleast_3d(decode(path, SIDE)), (SIDE, SIDE, 3))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def received(path: Path) -> Pixels:
    """The image in an uploaded file, as for `square`; the file is always deleted.

    Raises:
        DataError: the file is not a readable image.
    """
    try:
        return square(path)
    except InstaHideError as error:
        raise DataError(
            f"{path.name} is not an image that can be read.",
            "Choose a JPEG, PNG or WebP file with 8 or 16 bits a channel.",
        ) from error
    finally:
        path.unlink()


def _crops(files: list[Path], count: int, side: int) -> Pixels:
    photos = tuple(read_photo(path, (3, side, side)) for path in files)
    # The crops need not be secret, so they do not use the key stream.
    return PhotoCrops(photos, side, side).draw(np.random.default_rng().random((count, 4)))

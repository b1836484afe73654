"""The images that the page mixes with: built-in photographs, private and public ones apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.data.public.crops import PHOTOS, PhotoCrops, photo_files, read_photo
from instahide.data.readers.decode import decode, resize
from instahide.errors import DataError, InstaHideError

#: Height and width of the images that are looked at, and of those that are attacked.
SIDE, SMALL = 224, 24
#: Images of the participant besides the chosen one, public ones of either size.
OTHERS, PUBLIC, POOL = 15, 24, 2000

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, repr=False)
class DemoImages:
    """What there is to mix an image with. Photographs that are public give no private image.

    Attributes:
        choices: (3, SIDE, SIDE) built-in images to encrypt, by name.
        others: (OTHERS, 3, SIDE, SIDE) the participant's other images.
        public: (PUBLIC, 3, SIDE, SIDE).
        pool: (POOL, 3, SMALL, SMALL) public images for an attack.
    """

    choices: Mapping[str, Pixels]
    others: Pixels
    public: ImageTable
    pool: ImageTable

    @classmethod
    def open(cls) -> DemoImages:
        """Cut it from the built-in photographs.

        Raises:
            InstaHideError: they are not installed, or OpenCV is not.
        """
        files = photo_files(PHOTOS, 3)
        # Two of them are of one thing; they stand side by side.
        own, foreign = files[: len(files) // 2], files[len(files) // 2 :]
        return cls(
            {path.stem.replace("_", " "): square(path) for path in own},
            _crops(own, OTHERS, SIDE),
            ImageTable.from_arrays(_crops(foreign, PUBLIC, SIDE)),
            ImageTable.from_arrays(_crops(foreign, POOL, SMALL)),
        )

    def private(self, chosen: Pixels, side: int = SIDE) -> ImageTable:
        """The image ``chosen`` (3, SIDE, SIDE), as row 0, and the others, each a class of its own.

        Args:
            chosen: pixels.
            side: height and width of the images in the table.
        """
        pixels = np.concatenate([chosen[None], self.others])
        if side != SIDE:
            pixels = resize(pixels, side)
        return ImageTable.from_arrays(pixels, np.arange(len(pixels)))


def square(path: Path) -> Pixels:
    """The centre square of an image file: (3, SIDE, SIDE).

    Raises:
        InstaHideError: as `decode`.
    """
    pixels = np.broadcast_to(np.atleast_3d(decode(path, SIDE)), (SIDE, SIDE, 3))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def received(path: Path) -> Pixels:
    """The image in an uploaded file, as `square`; the file is deleted, whatever is in it.

    Raises:
        DataError: it is no image that can be read.
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
    # Not from the key stream: anybody may know which crops these are.
    return PhotoCrops(photos, side, side).draw(np.random.default_rng().random((count, 4)))

"""Finds and reads the images and volumes that patches of a scan pool are cut from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from instahide.data.pixels import Pixels
from instahide.data.public.crops import PHOTOS
from instahide.data.readers.any_image import read_image
from instahide.data.readers.decoded import unreadable
from instahide.data.readers.listing import find_images, is_dicom_file, no_images
from instahide.data.readers.medical.dicom import SUFFIXES
from instahide.data.readers.skipped import warn_of_skipped
from instahide.data.remote.downloads import local_copy
from instahide.errors import DataError, InstaHideError


class PixelKind(NamedTuple):
    """What all images of a pool have in common: ``channels``, and ``dtype`` as a name."""

    channels: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} with {self.channels} channel{'s' if self.channels > 1 else ''}"


class Scan(NamedTuple):
    """An image or volume that patches are cut from.

    Attributes:
        pixels: (C, H, W), or (C, D, H, W).
        further: whether the file has further images, which were not read.
    """

    pixels: Pixels
    further: bool

    @property
    def kind(self) -> PixelKind:
        """Number of channels and type of the pixels."""
        return PixelKind(len(self.pixels), self.pixels.dtype.name)


def scan_files(source: str | Path, *, volumes: bool, skip_bad: bool = False) -> tuple[Path, ...]:
    """The image files in a folder or its URL, at any depth, sorted; warns of what is left out.

    Args:
        source: the folder or its URL.
        volumes: take several DICOM files in one folder, with one slice each, as one volume: the
            folder is returned in place of the files.
        skip_bad: leave out files that cannot be read.

    Raises:
        InstaHideError: the folder cannot be read or holds no image.
    """
    if str(source) == PHOTOS:
        raise DataError(
            "The built-in photographs are cut into patches of photographs only.",
            "Use `patch=`, or name a folder of images.",
        )
    folder = Path(local_copy(source))
    found = find_images(folder, skip_bad=skip_bad)
    if not found.files:
        raise no_images(folder)
    warn_of_skipped(folder, found.skipped, found.total)
    if not volumes:
        return tuple(found.files)
    by_folder: dict[Path, list[Path]] = {}
    for path in found.files:
        by_folder.setdefault(path.parent, []).append(path)
    return tuple(path for parent, files in by_folder.items() for path in _volumes(parent, files))


def read_scan(path: Path, shape: tuple[int, ...]) -> Scan:
    """Read an image for patches of ``shape`` (H, W), or a volume for patches of (D, H, W).

    Args:
        path: the file, or the folder of a DICOM series.
        shape: the sides of a patch.

    Raises:
        InstaHideError: the file cannot be read, is smaller than a patch, is no volume although
            ``shape`` has three sides, or has pixels that are not finite.
    """
    decoded = read_image(path)
    pixels = decoded.pixels
    if pixels.ndim <= len(shape):
        raise unreadable(str(path), "it is an image, and patches have slices")
    sides = pixels.shape[1:][-len(shape) :]
    if any(side < patch for side, patch in zip(sides, shape, strict=True)):
        found, wanted = (" x ".join(map(str, each)) for each in (sides, shape))
        raise unreadable(str(path), f"it is smaller than a patch: {found}, not {wanted}")
    if not np.isfinite([pixels.min(), pixels.max()]).all():
        raise unreadable(str(path), "some pixels are not finite numbers")
    return Scan(pixels, decoded.further)


def other_kind(path: Path, kind: PixelKind, usual: PixelKind) -> DataError:
    """The error for the image ``path``, which differs from the others."""
    return DataError(
        f"{path} is {kind}, but other images are {usual}.",
        "Bring all images to one type and number of channels, or use `skip_bad=True` to leave out "
        "those that differ from most.",
    )


def _volumes(parent: Path, files: list[Path]) -> list[Path]:
    """``files`` of one folder, where single slices are replaced by the folder of their series."""
    slices = [path for path in files if path.suffix.lower() in SUFFIXES or is_dicom_file(path)]
    if len(slices) < 2 or not _is_slice(slices[0]):
        return files
    taken = set(slices)
    return [parent, *(path for path in files if path not in taken)]


def _is_slice(path: Path) -> bool:
    """Whether a DICOM file has a single frame; a damaged one is taken for one of its series."""
    try:
        return read_image(path).pixels.ndim == 3
    except InstaHideError:
        return True

"""A series of DICOM files in one folder, as one volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from instahide.data.readers.decoded import Decoded, kept_values
from instahide.data.readers.medical.dicom import (
    DIRECTORY,
    SUFFIXES,
    Slice,
    is_dicom,
    read_slice,
    without_causes,
)
from instahide.data.readers.medical.dicom_elements import RefusedError
from instahide.data.readers.medical.dicom_places import ordered_places
from instahide.data.readers.size_limits import require_plausible_size

#: Largest number of slices.
MOST_SLICES = 10_000


def series_files(folder: Path) -> list[Path]:
    """The files of a series in ``folder``, sorted by name.

    Folders, hidden files and an index are none, nor are files of another format by both name and
    content, such as notes and thumbnails.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.name[0] != "." and path.name != DIRECTORY and not _is_other(path)
    )


def _is_other(path: Path) -> bool:
    """Whether ``path`` is a folder, or a file of another format; not if it may be damaged."""
    if path.is_dir():
        return True
    return path.suffix[1:].isalpha() and path.suffix.lower() not in SUFFIXES and not is_dicom(path)


def decode_series(folder: Path, size: int | None = None) -> Decoded:
    """The volume of the slices in ``folder``: (C, D, H, W), in the order of their places.

    Slices are ordered by `ordered_places`.

    Raises:
        InstaHideError: a file is no readable DICOM slice, the slices differ in kind, direction or
            distance of pixels, or some are missing, shifted sideways or of another series; or
            pydicom is not installed.
    """
    with without_causes(folder):
        files = series_files(folder)
        if not 2 <= len(files) <= MOST_SLICES:
            raise RefusedError(f"a series has 2 to {MOST_SLICES} files, and this has {len(files)}")
        slices = _ordered(_read_all(files))
        windows = {each.window for each in slices}
        pixels = np.stack([each.pixels for each in slices], axis=1)
        return kept_values(pixels, size, window=windows.pop() if len(windows) == 1 else None)


def _read_all(files: Sequence[Path]) -> list[Slice]:
    """The slices of ``files``, which may not become implausibly large together."""
    slices: list[Slice] = []
    decoded, stored = 0, 0
    for path in files:
        slices.append(read_slice(path))
        decoded += slices[-1].pixels.nbytes
        stored += path.stat().st_size
        try:
            require_plausible_size(decoded, stored)
        except ValueError as error:
            raise RefusedError(str(error)) from None
    return slices


def _ordered(slices: Sequence[Slice]) -> list[Slice]:
    """``slices`` in the order of their places, if they form a volume."""
    kind = slices[0].pixels.shape, slices[0].pixels.dtype
    if len(kind[0]) != 3 or any((each.pixels.shape, each.pixels.dtype) != kind for each in slices):
        raise RefusedError("its slices differ in size or type, or have several frames")
    if len({each.series for each in slices if each.series}) > 1:
        raise RefusedError("its slices are of several series (SeriesInstanceUID)")
    order = ordered_places([each.place for each in slices])
    return [slices[number] for number in order]

"""Reads an image file of any format, which is known by its content."""

from __future__ import annotations

from pathlib import Path

from instahide.data.readers.decoded import Decoded, unreadable
from instahide.data.readers.image_file import IMAGE_SUFFIXES, decode_file
from instahide.data.readers.medical import dicom, dicom_series, nifti, tiff
from instahide.utils.atomic_write import open_regular

_HEAD = 352
_SUFFIXES = (*IMAGE_SUFFIXES, *dicom.SUFFIXES, *nifti.SUFFIXES)
_NIFTI_MAGIC = b"n+1\x00"


def is_image_name(name: str) -> bool:
    """Whether a file is named like an image of any format."""
    # A folder may hold a hundred thousand files.
    return name.lower().endswith(_SUFFIXES)


def read_image(path: Path, size: int | None = None) -> Decoded:
    """Decode an image file: PNG, JPEG and the like, TIFF, DICOM or NIfTI.

    Args:
        path: the file, or a folder with the files of one DICOM series.
        size: resize the short side of every plane to this many pixels and crop the center.

    Raises:
        InstaHideError: the file cannot be read, or needs a package that is not installed.
    """
    if path.is_dir():
        return dicom_series.decode_series(path, size)
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
        plain = not head.startswith(tiff.MAGIC) or tiff.is_plain_tiff(path)
    except OSError as error:
        raise unreadable(str(path), error.strerror or "it is no file") from error
    if head[128:132] == b"DICM" or path.name.lower().endswith(dicom.SUFFIXES):
        return dicom.decode_dicom(path, size)
    if head[344:348] == _NIFTI_MAGIC or path.name.lower().endswith(nifti.SUFFIXES):
        return nifti.decode_nifti(path, size)
    return decode_file(path, size) if plain else tiff.decode_tiff(path, size)

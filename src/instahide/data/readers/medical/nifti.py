"""NIfTI files, brought to one orientation."""

from __future__ import annotations

import gzip
import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from instahide.data.pixels import Pixels
from instahide.data.readers.decoded import Decoded, kept_values, rescaled, unreadable
from instahide.data.readers.size_limits import (
    LimitedReader,
    max_decoded_bytes,
    require_plausible_size,
)
from instahide.errors import failure_reason
from instahide.utils.atomic_write import open_regular
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

#: Names of NIfTI files, in lower case.
SUFFIXES = (".nii", ".nii.gz")
_GZIP = b"\x1f\x8b"


def decode_nifti(path: Path, size: int | None = None) -> Decoded:
    """The volume in a NIfTI file: (C, Z, Y, X) in the orientation RAS.

    The first voxel is the rightmost of the left, the back and the bottom: X grows to the right of
    the patient, Y to the front and Z to the head. The fourth dimension are the channels.

    Raises:
        InstaHideError: the file is damaged, has more dimensions, no plain numbers or no stated
            orientation, or is implausibly large; or nibabel is not installed.
    """
    with requires_extra("nibabel", "medical"):
        import nibabel

    try:
        content = _content(path)
        kind = nibabel.Nifti2Image if _is_second(content) else nibabel.Nifti1Image
        header = kind.header_class.from_fileobj(io.BytesIO(content))
        shape = tuple(map(int, header.get_data_shape()))
        _require_plausible(shape, header.get_data_dtype(), len(content))
        volume = _canonical(kind.from_bytes(content))
        pixels = volume.transpose(*range(3, volume.ndim), 2, 1, 0)
        return kept_values(pixels[None] if volume.ndim == 3 else pixels, size)
    except Exception as error:  # nibabel raises many kinds of errors on damaged files
        raise unreadable(str(path), failure_reason(error)) from error


def _content(path: Path) -> bytes:
    """The content of a file, unpacked if it is packed."""
    with open_regular(path) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            return file.read()
        with gzip.GzipFile(fileobj=file) as unpacked:
            return (
                LimitedReader(io.BufferedReader(unpacked), max_decoded_bytes(file_bytes)).readall()
                or b""
            )


def _is_second(content: bytes) -> bool:
    """Whether the header is of NIfTI-2, which has 540 bytes."""
    return (540).to_bytes(4, "little") == content[:4] or (540).to_bytes(4, "big") == content[:4]


def _require_plausible(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], content_bytes: int
) -> None:
    if dtype.kind not in "biuf":
        raise ValueError(f"its voxels are {dtype}, which are no plain numbers")
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise ValueError(f"its dimensions are {shape}; three are read, and channels as a fourth")
    count = math.prod(shape)
    if count * dtype.itemsize > content_bytes:
        raise ValueError(f"it ends before its {count:,} voxels")
    require_plausible_size(4 * count, content_bytes)


def _canonical(image: Nifti1Image) -> Pixels:
    """(X, Y, Z) or (X, Y, Z, C): the voxels of ``image`` in the orientation RAS, rescaled."""
    from nibabel.orientations import apply_orientation, io_orientation

    _require_orientation(image)
    orientation = io_orientation(image.affine)
    if not np.isfinite(orientation).all():
        raise ValueError("its orientation is not known")
    stored = np.asarray(image.dataobj.get_unscaled())
    if stored.ndim == 2:
        stored = stored[:, :, None]
    lowest, highest = 0, 0
    if stored.dtype.kind in "iu":
        limits = np.iinfo(stored.dtype)
        lowest, highest = int(limits.min), int(limits.max)
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    turned = np.asarray(apply_orientation(stored, orientation))
    return rescaled(turned, slope, intercept, lowest, highest)


def _require_orientation(image: Nifti1Image) -> None:
    """Check that the header states an orientation; nibabel supposes a mirrored one otherwise."""
    if max(int(image.header[code]) for code in ("qform_code", "sform_code")) <= 0:
        raise ValueError(
            "its orientation is not stated, as qform_code and sform_code are 0; if you know it, "
            "set it with nibabel by image.set_sform(affine, 1) and save the file"
        )

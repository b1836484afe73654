"""DICOM files: pixels as values, without reading who is shown.

Of a data set only the elements in `TAGS` are read. None of them says whose image it is but the
identifier of the series, which is compared in memory and neither stored nor printed. Messages of
pydicom may quote other elements and are not passed on.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from instahide.data.pixels import Pixels, ValueRange
from instahide.data.readers.decoded import Decoded, kept_values, rescaled, unreadable
from instahide.data.readers.medical.dicom_elements import RefusedError, plain
from instahide.data.readers.medical.dicom_frames import require_frame_sizes
from instahide.data.readers.medical.dicom_places import (
    Place,
    frame_places,
    ordered_places,
    stated_place,
)
from instahide.data.readers.size_limits import require_plausible_size
from instahide.utils.atomic_write import open_regular
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Names of DICOM files; others are known by their content.
SUFFIXES = (".dcm", ".dicom", ".ima")
#: An index of the other files of a folder, which holds no image.
DIRECTORY = "DICOMDIR"
#: Palettes in segments, which are refused: a short one may describe a very large palette.
_SEGMENTED = (
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
)  # fmt: skip
#: The elements that are read.
TAGS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SeriesInstanceUID",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "FloatPixelData", "PixelData",
)  # fmt: skip

_PREAMBLE, _PREFIX = 128, b"DICM"
#: A compression of the whole data set, whose unpacked size is nowhere stated.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLORS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"


class Slice(NamedTuple):
    """The image of one file.

    Attributes:
        pixels: (C, H, W) or (C, D, H, W).
        window: the range of values to show that the file states.
        place: where it lies.
        series: the identifier of its series, which is only compared with others; it may be empty.
    """

    pixels: Pixels
    window: ValueRange | None
    place: Place
    series: str


class _Mapping(NamedTuple):
    """From stored to real values, and the range of these to show."""

    slope: float
    intercept: float
    window: ValueRange | None


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do.

    Raises:
        OSError: it is not a regular file, or cannot be read.
    """
    with open_regular(path) as file:
        return file.read(_PREAMBLE + len(_PREFIX))[_PREAMBLE:] == _PREFIX


def decode_dicom(path: Path, size: int | None = None) -> Decoded:
    """The image in a DICOM file: (C, H, W), or (C, D, H, W) with D frames.

    Frames that state their places (in enhanced images) are ordered by `ordered_places`; otherwise
    they are in the order of the file.

    Values are those after rescale slope and intercept. Images of which 0 is white are inverted
    within the range of their stored bits; palettes and luminance with chrominance become RGB.

    Raises:
        InstaHideError: the file is damaged, has no image or one of an unknown kind, is implausibly
            large, or states places of frames that form no volume; or pydicom is not installed.
    """
    with without_causes(path):
        found = read_slice(path)
        return kept_values(found.pixels, size, window=found.window)


@contextmanager
def without_causes(path: Path) -> Iterator[None]:
    """Raise errors as `DataError` of ``path``, without texts of libraries that may quote a file."""
    with requires_extra("pydicom", "medical"):
        import pydicom  # noqa: F401  is there

    try:
        yield
    except RefusedError as error:
        raise unreadable(str(path), str(error)) from None
    except Exception:  # pydicom and its decoders raise many kinds of errors on damaged files
        reason = "it is damaged, or compressed in a way that is not known"
        raise unreadable(str(path), reason) from None


def read_slice(path: Path) -> Slice:
    """The image in a DICOM file and its place; only to be called under `without_causes`."""
    import pydicom

    with open_regular(path) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        content = file.read()
    if content[_PREAMBLE : _PREAMBLE + len(_PREFIX)] != _PREFIX:
        raise RefusedError("it does not begin as a DICOM file")
    if _DEFLATED in content:
        raise RefusedError("its data set is deflated; convert it to another transfer syntax")
    dataset = pydicom.dcmread(io.BytesIO(content), specific_tags=list(TAGS))
    _require_known(dataset, file_bytes)
    pixels, window = _values(dataset)
    pixels = _by_place(dataset, _channels_first(dataset, pixels))
    series = str(dataset.get("SeriesInstanceUID") or "")
    return Slice(pixels, window, stated_place(dataset), series)


def _require_known(dataset: Dataset, file_bytes: int) -> None:
    """Check size and kind of the pixels before they are decoded."""
    if "PixelData" not in dataset and "FloatPixelData" not in dataset:
        raise RefusedError("it holds no image")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    samples, frames = (
        int(dataset.SamplesPerPixel),
        int(plain(dataset.get("NumberOfFrames", 1)) or 1),
    )
    allocated = int(dataset.BitsAllocated)
    kind = str(dataset.PhotometricInterpretation)
    if min(rows, columns, frames) < 1 or (kind in _GREY or kind == _PALETTE) != (samples == 1):
        raise RefusedError("its image has no pixels, or not the channels of its kind")
    if kind not in (*_GREY, *_COLORS, _PALETTE) or samples not in (1, 3):
        raise RefusedError("its colors are neither grey nor RGB nor YBR nor of a palette")
    decoded_bytes = math.prod((rows, columns, samples, frames)) * max(1, allocated // 8)
    try:
        require_plausible_size(decoded_bytes, file_bytes)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    if any(tag in dataset for tag in _SEGMENTED):
        raise RefusedError("its palette is segmented, so that its size is not known; convert it")
    if dataset.get("ModalityLUTSequence"):
        raise RefusedError("its values are given by a table (Modality LUT); convert it")
    if "FloatPixelData" in dataset:
        return
    stored = int(dataset.BitsStored)
    if not 1 <= stored <= allocated <= 32 or int(dataset.get("HighBit", stored - 1)) != stored - 1:
        raise RefusedError("its bits are stored in a way that is not known")
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        try:
            require_frame_sizes(dataset.PixelData, frames, rows, columns, samples)
        except ValueError as error:
            raise RefusedError(str(error)) from None


def _values(dataset: Dataset) -> tuple[Pixels, ValueRange | None]:
    """The real values as pydicom shapes them, and the stated window of them."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import RLELossless

    kind = str(dataset.PhotometricInterpretation)
    mapping = _mapping(dataset)
    # pylibjpeg's decoder of run lengths panics on damaged data; pydicom's own raises errors.
    run_lengths = dataset.file_meta.TransferSyntaxUID == RLELossless
    plugin = "pydicom" if run_lengths else ""
    stored = np.asarray(pixel_array(dataset, decoding_plugin=plugin))
    if kind == _PALETTE:
        return np.asarray(apply_color_lut(stored, dataset)), None
    if kind not in _GREY:
        if (mapping.slope, mapping.intercept) != (1, 0):
            raise RefusedError("its colors are rescaled")
        return stored, None
    if stored.dtype.kind == "f":
        if kind == "MONOCHROME1":
            raise RefusedError("0 is white and its values are floats; convert it")
        return rescaled(stored, mapping.slope, mapping.intercept, 0, 0), mapping.window
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if int(stored.min()) < lowest or int(stored.max()) > highest:
        raise RefusedError(f"its pixels exceed the {bits} bits that it states")
    if kind == "MONOCHROME1":
        mapping = _inverted(mapping, lowest + highest)
        stored = (lowest + highest - stored.astype(np.int64)).astype(stored.dtype)
    pixels = rescaled(stored, mapping.slope, mapping.intercept, lowest, highest)
    return pixels, mapping.window


def _inverted(mapping: _Mapping, ends: int) -> _Mapping:
    """The mapping of stored values that are ``ends`` less those of ``mapping``."""
    if mapping.window is None:
        return mapping
    # Where s was mapped, ends - s is now: their sum is the same for all.
    total = mapping.slope * ends + 2 * mapping.intercept
    low, high = mapping.window
    return mapping._replace(window=(total - high, total - low))


def _mapping(dataset: Dataset) -> _Mapping:
    """How stored values are rescaled; in an enhanced image the same for all frames."""
    rescales: set[tuple[float, float]] = set()
    windows: set[ValueRange | None] = set()
    for part in _groups(dataset, "PixelValueTransformationSequence"):
        if part.get("RescaleSlope") is not None or part.get("RescaleIntercept") is not None:
            slope, intercept = part.get("RescaleSlope"), part.get("RescaleIntercept")
            if slope is None or intercept is None:
                raise RefusedError("it states a rescale slope or an intercept, but not both")
            rescales.add((float(plain(slope)), float(plain(intercept))))
    for part in _groups(dataset, "FrameVOILUTSequence"):
        if part.get("WindowWidth") is not None:
            windows.add(_window(part))
    if len(rescales) > 1:
        raise RefusedError("its frames are rescaled differently; save each as a file of its own")
    slope, intercept = rescales.pop() if rescales else (1.0, 0.0)
    return _Mapping(slope, intercept, windows.pop() if len(windows) == 1 else None)


def _groups(dataset: Dataset, name: str) -> Iterator[Dataset]:
    """The data set itself, and the sequences ``name`` of all its frames."""
    yield dataset
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for frame in dataset.get(sequence) or ():
            yield from frame.get(name) or ()


def _window(part: Dataset) -> ValueRange | None:
    """The first window that ``part`` states, by DICOM part 3, C.11.2.1.2; None of other kinds."""
    function = str(part.get("VOILUTFunction") or "LINEAR")
    center, width = (
        float(np.atleast_1d(plain(part.get(name)))[0]) for name in ("WindowCenter", "WindowWidth")
    )
    if function == "LINEAR_EXACT" and width > 0:
        return center - width / 2, center + width / 2
    if function == "LINEAR" and width > 1:
        return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return None


def _channels_first(dataset: Dataset, pixels: Pixels) -> Pixels:
    colored = str(dataset.PhotometricInterpretation) not in _GREY
    return np.moveaxis(pixels, -1, 0) if colored else pixels[None]


def _by_place(dataset: Dataset, pixels: Pixels) -> Pixels:
    """``pixels`` (C, D, H, W) in the order of the places of the frames, if these are stated."""
    places = frame_places(dataset) if pixels.ndim == 4 else []
    if not places:
        return pixels
    if len(places) != pixels.shape[1]:
        raise RefusedError(f"it has {pixels.shape[1]} frames and states places of {len(places)}")
    return pixels[:, ordered_places(places, "frames")]

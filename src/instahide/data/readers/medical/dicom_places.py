"""Places of DICOM slices in space, and the order of slices that form a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data.readers.medical.dicom_elements import RefusedError, numbers

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Largest part of the distance of two slices by which the places of others may differ from it.
_TOLERANCE = 0.05
#: Largest shift within the plane per distance of two slices: a gantry that is tilted by 45 degrees.
_MOST_TILT = 1.0
#: Functional groups of a frame with its position, its orientation and its distances of pixels.
_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")


class Place(NamedTuple):
    """Where a slice lies, in mm; a part that is not stated is empty.

    Attributes:
        position: (3,) of the first pixel.
        orientation: (6,) directions of rows and of columns.
        spacing: (2,) distances of rows and of columns; NaN if they are stated but no numbers.
    """

    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]


def stated_place(dataset: Dataset) -> Place:
    """The place that a file with one slice states.

    Raises:
        RefusedError: a number is not written in the digits 0 to 9.
    """
    return _place(dataset, dataset, dataset)


def frame_places(dataset: Dataset) -> list[Place]:
    """The places of the frames of an enhanced image; none if it states no position of a frame.

    Raises:
        RefusedError: as `stated_place`.
    """
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    own = [numbers(_part((frame,), _GROUPS[0]), "ImagePositionPatient") for frame in frames]
    if not any(position.size for position in own):
        return []
    return [_place(*(_part((frame, *shared), name) for name in _GROUPS)) for frame in frames]


def _part(groups: Sequence[Dataset], name: str) -> Dataset | None:
    """The first item of a sequence ``name`` in ``groups``."""
    return next((item for group in groups for item in group.get(name) or ()), None)


def _place(position: Dataset | None, orientation: Dataset | None, spacing: Dataset | None) -> Place:
    return Place(
        numbers(position, "ImagePositionPatient"),
        numbers(orientation, "ImageOrientationPatient"),
        _spacing(spacing),
    )


def _spacing(part: Dataset | None) -> NDArray[np.float64]:
    """The distances of pixels, which do not matter for an image by itself."""
    try:
        return numbers(part, "PixelSpacing")
    except ValueError:
        return np.full(2, np.nan)


def ordered_places(places: Sequence[Place], what: str = "slices") -> NDArray[np.intp]:
    """The indices of ``places`` in their order along the normal of their planes.

    The normal is the cross product of the directions of rows and columns.

    Args:
        places: at least two.
        what: what lies there, for messages.

    Raises:
        RefusedError: the places are not stated, have several directions or distances of pixels,
            or are not evenly spaced on a line that is normal to the planes, or at most 45 degrees
            off the normal as those of a tilted gantry are.
    """
    first = places[0]
    if any(each.orientation.shape != (6,) or each.position.shape != (3,) for each in places):
        raise RefusedError(f"its {what} do not state their places")
    if any(not np.allclose(each.orientation, first.orientation, atol=1e-3) for each in places):
        raise RefusedError(f"its {what} have several directions, as those of several series")
    if any(not _is_same(each.spacing, first.spacing) for each in places):
        raise RefusedError(f"the pixels of its {what} differ in their distance (PixelSpacing)")
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    length = float(np.linalg.norm(normal))
    if not length > 0:
        raise RefusedError(f"its {what} do not state their places")
    return _along(np.stack([each.position for each in places]), normal / length, what)


def _is_same(spacing: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return spacing.shape == other.shape and np.allclose(spacing, other, rtol=1e-3, atol=0)


def _along(
    positions: NDArray[np.float64], normal: NDArray[np.float64], what: str
) -> NDArray[np.intp]:
    """The order of ``positions`` (n, 3) along the unit vector ``normal``."""
    heights = positions @ normal
    order = np.argsort(heights)
    heights, positions = heights[order], positions[order]
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if not usual > 0 or not np.abs(gaps - usual).max() <= _TOLERANCE * usual:
        raise RefusedError(
            f"its {what} are not evenly spaced: some are missing, at one place or of other series"
        )
    shifts = positions - positions[0] - np.outer(heights - heights[0], normal)
    tilt = shifts[-1] / (heights[-1] - heights[0])
    beside = shifts - np.outer(heights - heights[0], tilt)
    if not np.linalg.norm(beside, axis=1).max() <= _TOLERANCE * usual:
        raise RefusedError(f"its {what} are shifted sideways, as those of several series")
    if not np.linalg.norm(tilt) <= _MOST_TILT:
        raise RefusedError(f"its {what} are shifted sideways by more than their distance")
    return order

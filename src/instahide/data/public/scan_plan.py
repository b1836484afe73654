"""Plans a public pool of medical or scientific images: what it is cut from, and its size."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from instahide.data.pixels import MOST_SIDE, ValueRange, require_range
from instahide.data.public.patch_grid import place_counts
from instahide.data.public.scan_files import PixelKind, other_kind, read_scan, scan_files
from instahide.data.readers.decode_listing import decode_listing
from instahide.data.readers.quiet import quiet_libraries
from instahide.data.readers.skipped import Skipped
from instahide.data.readers.window import require_window
from instahide.errors import DataError, InstaHideError

#: Standard deviation of a patch, as a share of that of all images, at the least.
MIN_SPREAD = 0.2
#: Largest size of a pool, by default.
MAX_GIGABYTES = 8.0
#: Images that the size of a pool and the spread of values are estimated from, at most.
SAMPLED_IMAGES = 16
#: Pixels of a channel of an image that its spread is measured on, at most, evenly spaced.
_SAMPLED_PIXELS = 1 << 20
_GIGA = 10**9


@dataclass(frozen=True, repr=False, eq=False)
class ScanPoolPlan:
    """What a pool will be cut from, and its size; see `plan_scan_pool`.

    Attributes:
        files: image files, and folders of DICOM series.
        size: (H, W) or (D, H, W) of a patch.
        kind: channels and type of all images.
        spread: (C,) standard deviation of the pixels of each channel.
        per_image: largest number of patches of an image.
        patches: number of patches, about: flat ones are not subtracted.
        max_gigabytes: largest size of the pool, in units of 10^9 bytes.
        window: the range that pixels are clipped to; None for all values.
        rescale: scale the window to 0 to 1, as float32.
        min_spread: least spread of a patch, as a share of ``spread``.
        skip_bad: leave out images that cannot be used.
        volumes: whether there are volumes among the images.
    """

    files: tuple[Path, ...]
    size: tuple[int, ...]
    kind: PixelKind
    spread: NDArray[np.float64]
    per_image: int
    patches: int
    max_gigabytes: float
    window: ValueRange | None
    rescale: bool
    min_spread: float
    skip_bad: bool
    volumes: bool

    def __repr__(self) -> str:
        """Sizes only, because names of files may tell who is shown."""
        return f"ScanPoolPlan({len(self.files)} images, about {self.patches} of {self.image_shape})"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) or (C, D, H, W) of a patch."""
        return self.kind.channels, *self.size

    @property
    def dtype(self) -> str:
        """Type of the pixels of a patch."""
        return "float32" if self.rescale else self.kind.dtype

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch."""
        return math.prod(self.image_shape) * np.dtype(self.dtype).itemsize

    @property
    def max_patches(self) -> int:
        """Largest number of patches."""
        return int(self.max_gigabytes * _GIGA) // self.patch_bytes

    @property
    def bytes(self) -> int:
        """Bytes of the pool on disk, about; while it is made, twice as many."""
        return self.patches * self.patch_bytes


def plan_scan_pool(
    source: str | Path,
    size: tuple[int, ...],
    *,
    per_image: int = 100,
    min_spread: float = MIN_SPREAD,
    window: ValueRange | None = None,
    rescale: bool = False,
    max_gigabytes: float = MAX_GIGABYTES,
    skip_bad: bool = False,
    progress: bool = True,
) -> ScanPoolPlan:
    """Find the images of a pool, and estimate its size from up to `SAMPLED_IMAGES` of them.

    Args:
        source: a folder or its URL, searched to any depth: DICOM, NIfTI, TIFF, PNG and the like.
            Of one number of channels and one type of pixels.
        size: (H, W) of patches of images or of the slices of volumes, or (D, H, W) of patches of
            volumes. Then several DICOM files of one slice in one folder are taken as one series.
        per_image: largest number of patches of an image or volume, so that none dominates.
        min_spread: the standard deviation of a patch as a share of that of all images, on average
            over the channels, at the least; 0 keeps all patches.
        window: the range that pixels are clipped to; best that of the private images.
        rescale: scale the window to 0 to 1, as float32, for private images that were rescaled.
        max_gigabytes: largest size of the pool, in units of 10^9 bytes.
        skip_bad: warn of images that cannot be read, are smaller than a patch or differ in kind
            from most, and go on.
        progress: show a bar.

    Raises:
        InstaHideError: an argument is out of range, there are no images, one cannot be used, or the
            pool would be larger than ``max_gigabytes``.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from PIL import Image
        >>> from instahide.data import plan_scan_pool
        >>> ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
        >>> with TemporaryDirectory() as folder:
        ...     Image.fromarray(ramp).save(f"{folder}/ramp.png")
        ...     plan = plan_scan_pool(folder, (16, 16), progress=False)
        >>> plan
        ScanPoolPlan(1 images, about 49 of (1, 16, 16))
        >>> plan.bytes
        25088
    """
    _require_arguments(size, per_image, min_spread, max_gigabytes)
    if window is not None and isinstance(require_window(window)[0], str):
        raise InstaHideError(
            "Percentiles, and windows of files, depend on the images of the pool.",
            "Give two values as in `window=(-1000, 400)`, or leave it out for all that there are.",
        )
    if rescale and window is None:
        raise InstaHideError(
            "Patches are to be rescaled, but their window is not known.",
            "Name it, as in `window=(-1000, 400)`.",
        )
    with quiet_libraries():
        files = scan_files(source, volumes=len(size) == 3, skip_bad=skip_bad)
        sample, looked_at = _sampled(files, size, window, skip_bad, progress)
    kind = _usual_kind(sample, skip_bad)
    if window is not None:
        require_range(window, np.dtype(kind.dtype))
    found = [each for each in sample if each.kind == kind]
    # Of images that were not looked at, as many may be used and have as many places.
    count = sum(min(per_image, each.places) for each in found)
    patches = math.ceil(len(files) * count / looked_at)
    plan = ScanPoolPlan(
        files, size, kind, _spread(found), per_image, patches, max_gigabytes, window, rescale,
        min_spread, skip_bad, any(each.volume for each in found),
    )  # fmt: skip
    require_size(plan, patches)
    return plan


def require_size(plan: ScanPoolPlan, patches: int) -> None:
    """Check that ``patches`` do not exceed the limit of the pool.

    Raises:
        InstaHideError: they do.
    """
    if patches <= plan.max_patches:
        return
    fitting = max(1, plan.max_patches // len(plan.files))
    raise InstaHideError(
        f"The pool would have {patches:,} patches or more, {decimal(patches * plan.patch_bytes)}, "
        f"but {plan.max_patches:,} are allowed.",
        f"Use `per_image={fitting}`, or raise `max_gigabytes=`.",
    )


class _Sample(NamedTuple):
    """What is known of an image.

    Attributes:
        path: its file or folder.
        kind: its channels and type.
        places: number of places of patches.
        moments: (2, C) mean, and mean square, of its sampled pixels.
        volume: whether it is a volume.
    """

    path: Path
    kind: PixelKind
    places: int
    moments: NDArray[np.float64]
    volume: bool


def _usual_kind(sample: list[_Sample], skip_bad: bool) -> PixelKind:
    """The kind of all images, or with ``skip_bad`` of most.

    Raises:
        DataError: they differ, unless ``skip_bad``.
    """
    usual = Counter(each.kind for each in sample).most_common(1)[0][0]
    others = [each for each in sample if each.kind != usual]
    if others and not skip_bad:
        raise other_kind(others[0].path, others[0].kind, usual)
    return usual


def _sample(path: Path, size: tuple[int, ...], window: ValueRange | None) -> _Sample:
    scan = read_scan(path, size)
    flat = scan.pixels.reshape(len(scan.pixels), -1)
    values = flat[:, :: -(-flat.shape[1] // _SAMPLED_PIXELS)].astype(np.float64)
    values = values if window is None else values.clip(*window)
    moments = np.stack([values.mean(axis=1), np.square(values).mean(axis=1)])
    places = math.prod(place_counts(scan.pixels.shape[1:], size))
    return _Sample(path, scan.kind, places, moments, scan.pixels.ndim == 4)


def _sampled(
    files: tuple[Path, ...],
    size: tuple[int, ...],
    window: ValueRange | None,
    skip_bad: bool,
    progress: bool,
) -> tuple[list[_Sample], int]:
    """Evenly spaced images, one at a time, as volumes may be large; and how many were read."""
    numbers = np.unique(np.linspace(0, len(files) - 1, SAMPLED_IMAGES).astype(np.int64))
    chosen = tuple(files[number] for number in numbers)

    read = partial(_sample, size=size, window=window)
    bad: list[Skipped] | None = [] if skip_bad else None
    reading = decode_listing(
        chosen, read, bad, workers=1, shown=progress, title="Looking at some images"
    )
    with closing(reading) as images:
        found = [image for _, image in images]
    if not found:
        raise DataError(
            f"None of {len(chosen)} images can be used. The first: {(bad or [])[0].name}",
            "Check the images and the sides of patches (`size=`).",
        )
    return found, len(chosen)


def _spread(found: list[_Sample]) -> NDArray[np.float64]:
    """(C,) standard deviation of the pixels of all images, where each image has the same weight."""
    mean, square = np.mean([each.moments for each in found], axis=0)
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))


def _require_arguments(
    size: tuple[int, ...], per_image: int, min_spread: float, max_gigabytes: float
) -> None:
    whole = all(type(side) is int and 1 <= side <= MOST_SIDE for side in size)
    if len(size) not in (2, 3) or not whole:
        raise InstaHideError(
            f"The sides of a patch are {','.join(map(str, size))}.",
            f"Give H,W or D,H,W as in `size=64,64,64`, each from 1 to {MOST_SIDE}.",
        )
    if per_image < 1 or not 0 <= min_spread < math.inf or not 0 < max_gigabytes < math.inf:
        raise InstaHideError(
            f"per_image = {per_image}, min_spread = {min_spread:g} or max_gigabytes = "
            f"{max_gigabytes:g} is out of range.",
            f"For example, use `per_image=100`, `min_spread={MIN_SPREAD:g}` and "
            f"`max_gigabytes={MAX_GIGABYTES:g}`.",
        )

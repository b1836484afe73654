"""The public pool: patches of public photographs, without flat ones.

The paper takes random crops of ImageNet and keeps those with more than 40 SIFT key points
(Huang et al., ICML 2020, section 4.2).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from instahide.data.cache import cache_folder, cached_table, memory_mapped
from instahide.data.public.crops import PHOTOS, PhotoCrops, Place, photo_files, read_photo
from instahide.data.readers.decode_listing import decode_listing
from instahide.data.readers.skipped import Skipped, warn_of_skipped
from instahide.data.remote.downloads import local_copy
from instahide.data.table import ImageTable
from instahide.errors import DataError, InstaHideError

#: The paper's threshold.
MIN_KEYPOINTS = 40
#: Approximate number of patches of the built-in pool.
BUILTIN_PATCHES = 10_000
#: Bytes of the built-in pool, at most, unless it would have fewer than `LEAST_PATCHES`.
MOST_BYTES = 1 << 30
LEAST_PATCHES = 100
#: Largest side of a crop in the first version of cached pools; those of larger ones are of the
#: second.
FIRST_VERSION_SIDE = 224
#: A photograph with fewer different crops for each requested patch is checked for repeated ones;
#: otherwise random crops hardly ever repeat.
ROOM = 100
#: Patches of a pool from others in which repeated ones and ones of one color are looked for.
SAMPLE = 1000
#: Crops tried per requested patch; a photograph with little detail gives fewer patches.
TRIES = 3
#: Number of crops whose key points are counted at a time.
BATCH = 32


def make_pool(
    source: str | Path,
    out: Path,
    *,
    patch: int = 32,
    per_image: int = 100,
    min_keypoints: int = MIN_KEYPOINTS,
    grey: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> ImageTable:
    """Cut public patches from photographs and save them to ``out`` as a table.

    Crops are random, and the pool is public. Another call makes a different pool.

    Args:
        source: a folder of photographs or its URL, searched to any depth, or `photos` for the
            built-in ones.
        out: a folder that does not exist yet, or is empty.
        patch: height and width of a patch in pixels.
        per_image: largest number of patches per photograph, so that none dominates.
        min_keypoints: SIFT key points that a crop must have, counted as `SIFT_SIDE` says.
        grey: one channel instead of three.
        skip_bad: warn of photographs that are damaged or smaller than a patch, and go on.
        workers: threads; as many as processors by default.
        progress: show a bar.

    Raises:
        InstaHideError: there are no photographs, no patch has enough key points, or ``out`` cannot
            be used.
    """
    if patch < 1 or per_image < 1:
        raise InstaHideError(
            f"patch and per_image must be at least 1, not {patch} and {per_image}.",
            "For example, use `patch=32` and `per_image=100`.",
        )
    existing = existing_parent(out)
    shape = (1 if grey else 3, patch, patch)
    files = tuple(photo_files(source, shape[0], skip_bad=skip_bad))
    cut = partial(_patches, shape=shape, quota=per_image, least=min_keypoints)
    pixels = memory_mapped(_each(files, cut, skip_bad, workers, progress), existing)
    if len(pixels) == 0:
        raise DataError(
            f"No crop of the {len(files)} photographs has {min_keypoints} key points.",
            "Use photographs with more detail, or a lower `min_keypoints=`.",
        )
    ImageTable.from_arrays(pixels).save(out)
    return ImageTable.load(out)


def open_pool(source: str | Path, shape: tuple[int, ...]) -> ImageTable:
    """Open a pool of public patches, memory-mapped.

    Args:
        source: a folder that `make_pool` or `make_scan_pool` wrote, or its URL, or `photos` for the
            built-in pool, which is made on first use and kept in the cache.
        shape: (C, H, W) of the private images, or (C, D, H, W) of the private volumes.

    Raises:
        InstaHideError: the folder holds no pool or a damaged one, its patches have another shape,
            or the built-in photographs are missing, or too small for enough different patches.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from instahide import open_images, open_pool
        >>> with TemporaryDirectory() as folder:
        ...     open_images("digits").save(Path(folder) / "pool")
        ...     open_pool(f"{folder}/pool", (1, 8, 8)).shape
        (1, 8, 8)
    """
    if str(source) == PHOTOS:
        name = "x".join(map(str, shape))
        version = "1" if max(_cropped(shape)) <= FIRST_VERSION_SIDE else "2"
        return cached_table(f"photos-{name}", version, partial(_builtin_pool, shape))
    pool = ImageTable.load(Path(local_copy(source)))
    if pool.shape != shape:
        raise DataError(
            f"The pool {source} holds patches of {pool.shape}, but the images are {shape}.",
            f"Make one that fits with `instahide public` ({_options(shape)}), or use "
            "`public='photos'`.",
        )
    _warn_of_few_pictures(pool, str(source))
    return pool


def _warn_of_few_pictures(pool: ImageTable, source: str) -> None:
    """Warn if most patches of a sample are of one color, or repeat others of the sample."""
    rows = np.linspace(0, len(pool) - 1, min(len(pool), SAMPLE), dtype=np.int64)
    sample = pool.subset(rows)
    flat = np.ptp(sample.pixels.reshape(*sample.pixels.shape[:2], -1), axis=2).max(axis=1) == 0
    different = len(np.unique(sample.content_ids[~flat]))
    if different < len(rows) / 2:
        warnings.warn(
            f"Of {len(rows)} patches of the pool {source}, only {different} are different and not "
            "of one color. Such a pool hides less of the private images. Make one from "
            "photographs with `instahide public`.",
            stacklevel=3,
        )


def existing_parent(out: Path) -> Path:
    """The nearest folder above ``out`` that exists.

    Raises:
        InstaHideError: ``out`` exists, and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InstaHideError(f"{out} already exists.", "Choose a new folder with `out=`.")
    return next(folder for folder in out.absolute().parents if folder.is_dir())


def _options(shape: tuple[int, ...]) -> str:
    """The arguments that make patches of ``shape``."""
    channels, *sides = shape
    if len(sides) == 2 and channels in (1, 3) and sides[0] == sides[1]:
        return f"`patch={sides[0]}`" + (", `grey=True`" if channels == 1 else "")
    return f"`size={','.join(map(str, sides))}`"


def _builtin_pool(shape: tuple[int, ...]) -> ImageTable:
    cropped = _cropped(shape)
    files = tuple(photo_files(PHOTOS, cropped[0]))
    fitting = sum(_fits(path, cropped) for path in files)
    count = min(BUILTIN_PATCHES, max(LEAST_PATCHES, MOST_BYTES // math.prod(shape)))
    quota = -(-count // max(1, fitting))
    cut = partial(_patches, shape=cropped, quota=quota, least=MIN_KEYPOINTS)
    title = f"Making the public pool, once ({decimal(count * math.prod(shape))} in the cache)"
    # Some photographs are smaller than large patches; the others suffice.
    patches = _each(files, cut, skip_bad=True, title=title)
    pixels = memory_mapped((_in_shape(patch, shape) for patch in patches), cache_folder())
    _require_enough(len(pixels), count, fitting, cropped)
    return ImageTable.from_arrays(pixels)


def _cropped(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) of the crops of photographs that images or volumes of ``shape`` are made of."""
    channels, *depth, height, width = shape
    margin = math.prod(depth) - 1
    return 1 if channels == 1 else 3, height + margin, width + margin


def _fits(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a photograph can be read and is not smaller than a patch."""
    with suppress(DataError):
        read_photo(path, shape)
        return True
    return False


def _require_enough(found: int, wanted: int, photographs: int, cropped: tuple[int, ...]) -> None:
    """Refuse a pool of very few different patches, and warn of few."""
    _, height, width = cropped
    remedy = "Make a pool from larger ones with `instahide public` and name it with `public=`."
    if found < max(1, min(wanted, LEAST_PATCHES) // 2):
        raise DataError(
            f"The built-in photographs are too small for patches of {height} x {width}: they "
            f"give only {found} different ones.",
            remedy,
        )
    if found < BUILTIN_PATCHES // 10:
        problem = (
            f"The built-in public pool has only {found} different patches of {height} x {width}, "
            f"from the {photographs} photographs that are large enough."
        )
        warnings.warn(f"{problem} {remedy}", stacklevel=2)


def _in_shape(patch: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A patch of a photograph as an image with more channels, or as a volume.

    Channels repeat red, green and blue. The planes of a volume are the patch, moved by one pixel
    from each to the next, so that neighbouring planes are alike.
    """
    channels, *depth, height, width = shape
    patch = patch[np.arange(channels) % len(patch)]
    if not depth:
        return patch
    planes = [patch[:, at : at + height, at : at + width] for at in range(depth[0])]
    return np.stack(planes, axis=1)


def _each(
    files: tuple[Path, ...],
    cut: Callable[[Path], NDArray[np.uint8]],
    skip_bad: bool,
    workers: int | None = None,
    progress: bool = True,
    title: str = "Making the public pool",
) -> Generator[NDArray[np.uint8], None, None]:
    skipped: list[Skipped] = []
    bad = skipped if skip_bad else None
    reading = decode_listing(files, cut, bad, workers=workers, shown=progress, title=title)
    with closing(reading) as photographs:
        for _, patches in photographs:
            yield from patches
    warn_of_skipped("the photographs", skipped, len(files))


def _patches(path: Path, *, shape: tuple[int, ...], quota: int, least: int) -> NDArray[np.uint8]:
    """At most ``quota`` patches of one photograph, each of ``least`` key points: (n, C, H, W).

    A photograph with few different crops gives each of them once at most.
    """
    _, height, width = shape
    crops = PhotoCrops((read_photo(path, shape),), height, width)
    generator = np.random.default_rng()
    kept: list[NDArray[np.uint8]] = []
    seen: set[Place] = set()
    repeats = crops.count < ROOM * quota
    for _ in range(-(-TRIES * quota // BATCH)):
        uniforms = generator.random((BATCH, 4))
        if repeats:
            uniforms = uniforms[_first_rows(crops.places(uniforms), seen)]
        kept.extend(crops.draw(uniforms[crops.keypoints(uniforms) >= least]))
        if len(kept) >= quota:
            break
    return np.stack(kept[:quota]) if kept else np.empty((0, *shape), np.uint8)


def _first_rows(places: list[Place], seen: set[Place]) -> list[int]:
    """The rows of ``places`` that neither ``seen`` nor an earlier row has; they are added to it."""
    rows = []
    for row, place in enumerate(places):
        if place not in seen:
            seen.add(place)
            rows.append(row)
    return rows

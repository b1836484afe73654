"""Public pools of medical and scientific images: patches with the type and values of their files.

Photographs are selected by SIFT key points (`pool.make_pool`), which exist in 8-bit images of two
dimensions alone. Here the criterion is the spread of values: the standard deviation of a patch must
be at least a share of that of all images, so that a patch of air or of even tissue is left out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from instahide.data.cache import memory_mapped
from instahide.data.pixels import (
    UNIT,
    Pixels,
    channel_moments,
    clip_pixels,
    convert_pixels,
    full_range,
)
from instahide.data.public.patch_grid import random_patches
from instahide.data.public.pool import existing_parent
from instahide.data.public.scan_files import other_kind, read_scan
from instahide.data.public.scan_plan import ScanPoolPlan, require_size
from instahide.data.readers.decode_listing import decode_listing
from instahide.data.readers.quiet import quiet_libraries
from instahide.data.readers.skipped import FLAT, FRAMES, Skipped, warn_of_skipped
from instahide.data.table import ImageTable
from instahide.errors import DataError, InstaHideError
from instahide.utils.parallel import AHEAD

#: Volumes that are decoded at the same time, at most.
MOST_VOLUMES = 4
#: Bytes of patches that may wait to be written; fewer threads are used for large patches.
_WAITING_BYTES = 1 << 30
#: Results that wait for each thread of `parallel_map`, and one at work.
_WAITING = AHEAD + 1


class _Cut(NamedTuple):
    """``patches`` (n, C, ..., H, W) of one image; ``further`` as in `Scan`."""

    patches: Pixels
    further: bool


def make_scan_pool(
    plan: ScanPoolPlan, out: Path, *, workers: int | None = None, progress: bool = True
) -> ImageTable:
    """Cut the patches of ``plan`` and save them to ``out`` as a table, which `open_pool` reads.

    Patches lie on a grid with steps of half a patch and a random origin in each image. Patches of
    two dimensions are cut from any slice of a volume. Positions
    are tried in random order until there are enough. Another call makes a different pool.

    Args:
        plan: see `plan_scan_pool`.
        out: a folder that does not exist yet, or is empty. Nothing is left there by a call that
            fails or is interrupted.
        workers: threads; by default as many as processors, and fewer for large patches.
        progress: show a bar.

    Raises:
        InstaHideError: an image cannot be used, all patches are flat, there is too little space, or
            ``out`` cannot be used.
    """
    existing = existing_parent(out)
    _require_space(plan, existing)
    with quiet_libraries():
        pixels = memory_mapped(_patches(plan, workers or _workers(plan), progress), existing)
    if len(pixels) == 0:
        raise DataError(
            f"No patch of the {len(plan.files)} images has {plan.min_spread:g} times their spread.",
            "Use images with more detail, a narrower `window=`, or a lower `min_spread=`.",
        )
    value_range = UNIT if plan.rescale else plan.window or full_range(pixels)
    mean, std = channel_moments(pixels, value_range)
    labels = np.zeros(len(pixels), np.int64)
    table = ImageTable(pixels, labels, (), mean, std, value_range=value_range, absolute=True)
    table.save(out)
    return ImageTable.load(out)


def _patches(
    plan: ScanPoolPlan, workers: int, progress: bool
) -> Generator[NDArray[np.generic], None, None]:
    skipped: list[Skipped] = []
    total = 0
    bad = skipped if plan.skip_bad else None
    reading = decode_listing(
        plan.files, partial(_cut, plan=plan), bad, workers=workers, shown=progress,
        title="Cutting public patches",
    )  # fmt: skip
    with closing(reading) as images:
        for number, image in images:
            total += len(image.patches)
            require_size(plan, total)
            yield from image.patches
            name = str(plan.files[number])
            skipped += [Skipped(FRAMES, name)] if image.further else []
            skipped += [] if len(image.patches) else [Skipped(FLAT, name)]
    if not total:  # An error says it of all.
        skipped = [each for each in skipped if each.reason != FLAT]
    warn_of_skipped("the images", skipped, len(plan.files))


def _cut(path: Path, plan: ScanPoolPlan) -> _Cut:
    """At most ``plan.per_image`` patches of one image that are not flat."""
    scan = read_scan(path, plan.size)
    if scan.kind != plan.kind:
        raise other_kind(path, scan.kind, plan.kind)
    pixels = scan.pixels if plan.window is None else clip_pixels(scan.pixels, plan.window)
    places = random_patches(pixels, plan.size, np.random.default_rng())
    kept = islice((patch for patch in places if _is_detailed(patch, plan)), plan.per_image)
    # Copies, as a patch would otherwise keep its whole image in memory.
    patches = [patch.copy() for patch in kept]
    if not patches:
        return _Cut(np.empty((0, *plan.image_shape), plan.dtype), scan.further)
    whole = np.stack(patches)
    if plan.rescale and plan.window is not None:
        whole = convert_pixels(whole, plan.window, np.dtype(plan.dtype), UNIT)
    return _Cut(whole, scan.further)


def _is_detailed(patch: Pixels, plan: ScanPoolPlan) -> bool:
    varied = plan.spread > 0
    if not plan.min_spread or not varied.any():
        return not plan.min_spread
    spread = patch.reshape(len(patch), -1).std(axis=1, dtype=np.float64)
    return float((spread[varied] / plan.spread[varied]).mean()) >= plan.min_spread


def _workers(plan: ScanPoolPlan) -> int:
    """As many threads as their results have room in memory."""
    waiting = _WAITING * plan.per_image * plan.patch_bytes
    processors = os.cpu_count() or 1
    most = min(MOST_VOLUMES, processors) if plan.volumes else processors
    return max(1, min(most, _WAITING_BYTES // waiting))


def _require_space(plan: ScanPoolPlan, folder: Path) -> None:
    needed, free = 2 * plan.bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise InstaHideError(
            f"The pool needs {decimal(needed)} while it is made, but {decimal(free)} are free in "
            f"{folder}.",
            "Free some space, or use a lower `per_image=`.",
        )

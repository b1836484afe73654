"""Real volumes and images of many channels, cut from files that packages ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = tuple[NDArray[np.generic], NDArray[np.int64]]


def volumes(count: int, side: int = 8) -> Arrays:
    """(count, 1, side, side, side) int16 crops of a brain scan; class 1: the brighter half."""
    import nibabel

    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    scan = np.asarray(nibabel.load(path).dataobj)[..., 0].astype(np.int16)
    draw = np.random.default_rng(0)
    # Inside the head.
    starts = draw.integers((20, 20, 2), np.array(scan.shape) - side - (20, 20, 2), (count, 3))
    crops = np.stack([scan[x : x + side, y : y + side, z : z + side] for x, y, z in starts])
    means = crops.mean(axis=(1, 2, 3))
    return crops[:, None], (means > np.median(means)).astype(np.int64)


def stains(count: int, side: int = 8) -> Arrays:
    """(count, 5, side, side) uint16 crops of a stained tissue: colors and two stains.

    Class 1 are those with much of the second stain.
    """
    from skimage import color, data

    picture = data.immunohistochemistry()
    stained = np.clip(color.rgb2hed(picture)[..., [0, 2]], 0, 0.2) / 0.2
    whole = np.concatenate([picture / 255, stained], axis=2)
    tissue = np.rint(4095 * whole).astype(np.uint16).transpose(2, 0, 1)
    draw = np.random.default_rng(0)
    starts = draw.integers(0, np.array(tissue.shape[1:]) - side, (count, 2))
    crops = np.stack([tissue[:, y : y + side, x : x + side] for y, x in starts])
    means = crops[:, 4].mean(axis=(1, 2))
    return crops, (means > np.median(means)).astype(np.int64)


def brain_blocks(count: int, depth: int = 8, side: int = 16) -> NDArray[np.int16]:
    """(count, 1, depth, side, side) blocks of a brain scan, apart from each other, none flat."""
    import nibabel

    path = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    scan = np.asarray(nibabel.load(path).dataobj)[..., 0].astype(np.int16).T
    places = [range(0, length - size + 1, size) for length, size in
              zip(scan.shape, (depth, side, side), strict=True)]  # fmt: skip
    blocks = np.stack(
        [
            scan[z : z + depth, y : y + side, x : x + side]
            for z in places[0]
            for y in places[1]
            for x in places[2]
        ]
    )
    textured = np.argsort(-blocks.std(axis=(1, 2, 3)), kind="stable")[:count]
    return np.asarray(blocks[textured, None])

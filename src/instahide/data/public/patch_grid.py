"""Places of patches in an image or volume: a grid with steps of half a patch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from instahide.data.pixels import Pixels


def place_counts(sides: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many places there are along each axis of an image with ``sides``.

    Args:
        sides: (H, W), or (D, H, W) of a volume.
        shape: the sides of a patch, at most those of the image. A patch (H, W) of a volume lies in
            one slice.

    Examples:
        >>> place_counts((64, 100), (32, 32)), place_counts((20, 64, 64), (32, 32))
        ((3, 5), (20, 3, 3))
    """
    whole = _whole(sides, shape)
    return tuple((side - n) // _step(n) + 1 for side, n in zip(sides, whole, strict=True))


def random_patches(
    pixels: Pixels, shape: tuple[int, ...], generator: np.random.Generator
) -> Iterator[Pixels]:
    """Views (C, *shape) of ``pixels`` (C, ..., H, W), each place of a grid once, in random order.

    The origin of the grid is random, too.
    """
    sides = pixels.shape[1:]
    whole = _whole(sides, shape)
    counts = place_counts(sides, shape)
    steps = np.asarray([_step(n) for n in whole])
    slack = (np.asarray(sides) - whole) % steps
    origin = generator.integers(slack + 1)
    for number in generator.permutation(math.prod(counts)):
        starts = origin + steps * np.asarray(np.unravel_index(number, counts))
        places = (slice(int(s), int(s) + n) for s, n in zip(starts, whole, strict=True))
        yield pixels[(slice(None), *places)].reshape(len(pixels), *shape)


def _whole(sides: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with one slice for an axis that it lacks."""
    return (*(1 for _ in sides[len(shape) :]), *shape)


def _step(side: int) -> int:
    return max(1, side // 2)

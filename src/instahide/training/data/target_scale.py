"""Mean and standard deviation of the values that a regression predicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.data.labels import Labels
from instahide.training.distributed.processes import Processes


class TargetScale(NamedTuple):
    """The unit of the outputs of a regression: ``(value - mean) / std``; empty for other tasks."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


#: Of tasks other than regression.
UNSCALED = TargetScale((), ())


def target_scale(images: ImageTable, processes: Processes) -> TargetScale:
    """The scale of the labels of ``images`` in all ``processes``."""
    if images.task != "regression":
        return UNSCALED
    sums = processes.gather(_sums(images.labels).tolist())
    return _scale(np.asarray(sums).sum(0))


def scale_of_parts(parts: Iterable[Labels]) -> TargetScale:
    """The scale of values (n, columns) that come in ``parts``."""
    return _scale(np.sum([_sums(part) for part in parts], axis=0))


def _sums(values: Labels) -> NDArray[np.float64]:
    """(3, columns): numbers, sums and sums of squares."""
    exact = values.astype(np.float64)
    return np.stack([np.full(exact.shape[1], len(exact)), exact.sum(0), np.square(exact).sum(0)])


def _scale(sums: NDArray[np.float64]) -> TargetScale:
    count, total, squares = sums
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    # Of values that are all the same, every scale is as good.
    std[std <= 1e-6 * np.maximum(np.abs(mean), 1e-30)] = 1.0
    return TargetScale(tuple(mean.tolist()), tuple(std.tolist()))

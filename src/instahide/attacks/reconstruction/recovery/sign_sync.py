"""Synchronization of the signs of pixels, which encodings do not determine."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.utils.optional_deps import requires_extra


def synchronize_signs(images: Tensor) -> Tensor:
    """Correct the sign of each pixel and channel, which is common to all images (m, C, H, W).

    The encodings do not determine these signs: flipping a value in all images at once does not
    change any |x|. But images are smooth, and their channels are similar. The signs that maximize
    both are the leading eigenvector of the correlations between neighbors (as in angular
    synchronization, Singer 2011).

    Args:
        images: (m, C, H, W) images.

    Raises:
        InstaHideError: SciPy is missing.
    """
    with requires_extra("SciPy", "audit"):
        from scipy.sparse import coo_array, diags_array
        from scipy.sparse.linalg import eigsh
    values = images.cpu().numpy()
    size = int(np.prod(values.shape[1:]))
    ends, weights = _neighbours(values)
    graph = coo_array((weights, ends), (size, size)).tocsr()
    graph = graph + graph.T
    scale = diags_array(1 / np.sqrt(np.asarray(abs(graph).sum(axis=1)).ravel() + 1e-6))
    start = np.ones(size)
    leading = eigsh(scale @ graph @ scale, k=1, which="LA", v0=start, tol=1e-3)[1][:, 0]
    signs = np.where(leading < 0, -1.0, 1.0)
    for _ in range(20):
        signs = np.where(graph @ signs < 0, -1.0, 1.0)
    return images * torch.from_numpy(signs.reshape(values.shape[1:])).to(images)


def _neighbours(
    values: NDArray[np.float32],
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]:
    """Pairs of values adjacent in space or color, and their signed similarity."""
    places = np.arange(int(np.prod(values.shape[1:]))).reshape(values.shape[1:])
    colours = combinations(range(values.shape[1]), 2)
    steps = [
        (np.s_[..., 1:, :], np.s_[..., :-1, :]),
        (np.s_[..., 1:], np.s_[..., :-1]),
        *((np.s_[..., [a], :, :], np.s_[..., [b], :, :]) for a, b in colours),
    ]
    first, second, weights = [], [], []
    for one, other in steps:
        a, b = values[one], values[other]
        energy = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0)) + 1e-9
        likeness = (a * b).sum(axis=0) / energy
        first.append(places[one].ravel())
        second.append(places[other].ravel())
        weights.append((likeness * np.abs(likeness)).ravel())
    return (np.concatenate(first), np.concatenate(second)), np.concatenate(weights)

"""timm's `PrefetchLoader`, which moves 8-bit images to a device and normalizes them there.

Images must be normalized before they are mixed. So the loader inside normalizes them in its collate
function, and the prefetcher around the encodings only moves them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from instahide.errors import IntegrationError


def is_prefetcher(loader: object) -> bool:
    """Whether ``loader`` is a `timm.data.loader.PrefetchLoader`."""
    kind = type(loader)
    return (kind.__module__, kind.__name__) == ("timm.data.loader", "PrefetchLoader")


def normalizing(prefetcher: Any, inner: DataLoader[object]) -> DataLoader[object]:
    """A copy of ``inner`` whose images are normalized as the ``prefetcher`` would do it.

    Raises:
        IntegrationError: the prefetcher also erases parts of images.
    """
    if prefetcher.random_erasing is not None:
        raise IntegrationError(
            "timm's prefetcher erases parts of images after it has normalized them, which would "
            "erase parts of encodings.",
            "Leave out `re_prob=`, or make the loader by `create_loader(..., "
            "use_prefetcher=False)`, which erases in the transform.",
        )
    normalized = copy.copy(inner)
    mean, std = (moment[0].float().cpu() for moment in (prefetcher.mean, prefetcher.std))
    normalized.collate_fn = NormalizingCollate(inner.collate_fn, mean, std)
    return normalized


def without_normalization(prefetcher: Any) -> Any:
    """``prefetcher``, changed so that it moves what it is given and does nothing else."""
    prefetcher.mean = torch.zeros_like(prefetcher.mean)
    prefetcher.std = torch.ones_like(prefetcher.std)
    return prefetcher


class NormalizingCollate:
    """A collate function of 8-bit images (n, C, H, W), followed by their normalization.

    Args:
        collate: returns images and labels.
        mean: (C, 1, 1) mean of pixels from 0 to 255.
        std: (C, 1, 1) standard deviation, likewise.
    """

    def __init__(self, collate: Callable[[Any], Any], mean: Tensor, std: Tensor) -> None:
        self.collate, self.mean, self.std = collate, mean, std

    def __call__(self, items: Any) -> tuple[Tensor, object]:
        """Images as float32, and labels."""
        images, labels = self.collate(items)
        return images.float().sub_(self.mean).div_(self.std), labels

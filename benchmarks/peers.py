"""The authors' routine, written anew from its description, on the tensors that it works on.

A Python loop over the samples draws |N(0, 1)| coefficients and draws again until they meet the
bounds; the whole set is gathered k times by random permutations, as floats; the mask is a tensor of
64-bit integers. Only the speed is of interest here: the draws come from generators that anybody can
rebuild, which is one more thing not to do.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def inside(images: Tensor, onehot: Tensor, k: int, c1: float) -> tuple[Tensor, Tensor]:
    """Encode ``images`` (n, C, H, W), normalized floats, with labels ``onehot`` (n, classes)."""
    weights = coefficients(len(images), k, c1, private_k=k, c2=0.0)
    mixed, labels = torch.zeros_like(images), torch.zeros_like(onehot)
    for slot in range(k):
        add_private(mixed, labels, images, onehot, weights[:, slot])
    return masked(mixed), labels


def cross(
    images: Tensor, onehot: Tensor, public: Tensor, k: int, c1: float, c2: float
) -> tuple[Tensor, Tensor]:
    """The same with two private images a mix, and k - 2 of ``public`` (P, C, H, W)."""
    weights = coefficients(len(images), k, c1, private_k=2, c2=c2)
    mixed, labels = torch.zeros_like(images), torch.zeros_like(onehot)
    for slot in range(2):
        add_private(mixed, labels, images, onehot, weights[:, slot])
    for slot in range(2, k):
        chosen = torch.randperm(len(images)) % len(public)
        mixed += weights[:, slot, None, None, None] * public[chosen]
    return masked(mixed), labels


def coefficients(count: int, k: int, c1: float, *, private_k: int, c2: float) -> Tensor:
    """(count, k) float32, one sample at a time."""
    drawn = np.empty((count, k), np.float32)
    for sample in range(count):
        values = shares(k)
        while values.max() > c1 or values[:private_k].sum() < c2:
            values = shares(k)
        drawn[sample] = values
    return torch.from_numpy(drawn)


def shares(k: int) -> NDArray[np.float64]:
    values = np.abs(np.random.normal(size=k))
    return np.asarray(values / values.sum())


def add_private(
    mixed: Tensor, labels: Tensor, images: Tensor, onehot: Tensor, weights: Tensor
) -> None:
    """Add one private image to every mix."""
    order = torch.randperm(len(images))
    mixed += weights[:, None, None, None] * images[order]
    labels += weights[:, None] * onehot[order]


def masked(mixed: Tensor) -> Tensor:
    signs = torch.randint(0, 2, mixed.shape) * 2 - 1
    return mixed * signs

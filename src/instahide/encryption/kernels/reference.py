"""The definition of an encoding, against which all other kernels are tested."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.encryption.keys import OneTimeKeys


def encode(
    private: NDArray[np.generic],
    public: NDArray[np.generic],
    keys: OneTimeKeys,
    private_k: int,
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    black: float = 0,
) -> NDArray[np.float64]:
    """Sigma * sum_j lambda_j x_j over normalized images x_j, in float64.

    Args:
        private: (N, C, H, W) pixels.
        public: (P, C, H, W) pixels.
        keys: for n mixes of k images.
        private_k: columns of ``keys.partners`` that are rows of ``private``.
        scale: (C,) with ``bias``, the normalization ``pixel * scale + bias``.
        bias: (C,)
        black: the pixel that comes in where an image is moved.

    Returns:
        (n, C, H, W)
    """
    images = np.concatenate(
        [private[keys.partners[:, :private_k]], public[keys.partners[:, private_k:]]], axis=1
    )
    if keys.moves is not None:
        images = np.stack(
            [
                [shift_and_flip(image, move, black) for image, move in zip(mix, moves, strict=True)]
                for mix, moves in zip(images, keys.moves, strict=True)
            ]
        )
    normalized = images * scale[:, None, None].astype(np.float64) + bias[:, None, None]
    mixed = np.einsum("nk,nkchw->nchw", keys.coefficients.astype(np.float64), normalized)
    if keys.masks is None:
        return np.asarray(mixed)
    return np.asarray(np.where(mask_bits(keys.masks, mixed.shape[2:]), -mixed, mixed))


def shift_and_flip(
    image: NDArray[np.generic], move: NDArray[np.int8], black: float = 0
) -> NDArray[np.generic]:
    """(C, H, W) mirrored and shifted by ``move`` (down, right, mirrored), black coming in."""
    height, width = image.shape[1:]
    # Sums of a signed byte with itself or a size do not fit into one.
    down, right, mirrored = map(int, move)
    pad = max(abs(down), abs(right))
    source = image[:, :, ::-1] if mirrored else image
    padded = np.pad(source, ((0, 0), (pad, pad), (pad, pad)), constant_values=black)
    return padded[:, pad - down : pad - down + height, pad - right : pad - right + width]


def mask_bits(masks: NDArray[np.uint32], size: tuple[int, ...]) -> NDArray[np.bool]:
    """(n, C, words) packed bits -> (n, C, H, W) bool: whether the sign is flipped."""
    bits = (masks[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    height, width = size
    flat = bits.reshape(*masks.shape[:2], -1)[..., : height * width]
    return np.asarray(flat.reshape(*masks.shape[:2], height, width), np.bool)

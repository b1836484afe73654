"""Mixup with Gaussian noise: a scheme without a mask, whose mixes get noise.

Mixes of several images with Gaussian noise were proposed for the release of private data by Lee,
Kim, Song, Ha and Lee, "Synthesizing Differentially Private Datasets using Random Mixing" (IEEE ISIT
2019). `Scheme` covers this case, with its accounting of noise.
"""

from __future__ import annotations

from instahide.encryption.scheme import Scheme

#: Default standard deviation, in units of normalized images.
NOISE = 0.5


def noisy_mixup(k: int = 4, noise: float = NOISE) -> Scheme:
    """The scheme that mixes ``k`` private images without a mask and adds Gaussian noise.

    Args:
        k: images in a mix.
        noise: standard deviation of the noise on every value, in units of normalized images.

    Raises:
        SchemeError: a value is out of range.

    Examples:
        >>> from instahide.encryption.encoders.rivals.noisy_mixup import noisy_mixup
        >>> noisy_mixup(6).mask
        False
    """
    return Scheme.mixup(k, noise=noise)

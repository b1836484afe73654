"""Checks that the images of a user's loader have the stated normalization."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instahide.data.normalization.channel_statistics import ChannelStatistics
from instahide.data.normalization.normalization import (
    Normalization,
    require_consistent_normalization,
    require_sign_balance,
    require_similar_spread,
)


class ValueCheck:
    """Checks the value statistics of all images so far, and is updated by every batch.

    A single unusual batch or image is therefore not an error.

    Args:
        moments: the stated normalization of the images; None if it is not needed.
        public: statistics of the public images under the same normalization; None without any.
        mask: whether the images are masked, and so need values of both signs.
    """

    def __init__(
        self, moments: Normalization | None, public: ChannelStatistics | None, *, mask: bool
    ) -> None:
        self._normalization = moments and Normalization(*moments)
        self._public = public
        self._mask = mask
        self._seen: ChannelStatistics | None = None

    def see(self, images: NDArray[np.float32]) -> None:
        """Add a batch of finite images (m, C, H, W), and check the images so far.

        Raises:
            InstaHideError: their values do not match the stated normalization, have mostly one
                sign, or are far larger or smaller than those of the public images.
        """
        if not len(images):
            return
        batch = ChannelStatistics.of_values(images)
        seen = batch if self._seen is None else self._seen + batch
        if self._normalization is not None:
            require_consistent_normalization(seen, self._normalization)
        if self._public is not None:
            require_similar_spread(seen, self._public)
        if self._mask:
            require_sign_balance(seen, "Add Normalize(mean, std) to the end of the transform.")
        self._seen = seen

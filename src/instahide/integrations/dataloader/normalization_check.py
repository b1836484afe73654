"""Whether the images of somebody's loader are normalized as they are said to be."""

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
    """Looks at the images of every batch. What it judges by is what it has seen of all of them.

    So an odd first batch decides nothing for good, and a batch of one image is not refused for
    what that image shows.

    Args:
        moments: what the images are said to be normalized with; None where nobody needs to know.
        public: of the public images, under the same normalization; None where there are none.
        mask: whether the images are to be masked, which must be able to hide their values.
    """

    def __init__(
        self, moments: Normalization | None, public: ChannelStatistics | None, *, mask: bool
    ) -> None:
        self._normalization = moments and Normalization(*moments)
        self._public = public
        self._mask = mask
        self._seen: ChannelStatistics | None = None

    def see(self, images: NDArray[np.float32]) -> None:
        """Look at a batch of finite images (m, C, H, W).

        Raises:
            InstaHideError: the images seen so far are not normalized as they are said to be, have
                values of one sign, or are far larger or smaller than the public ones.
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

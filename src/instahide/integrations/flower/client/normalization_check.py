"""A participant's check that the server's normalization fits its own images.

The mask hides a value's sign, so values need both signs; noise is measured in normalized units, so
a standard deviation that is too small makes noise too weak. Both follow from ``mean`` and ``std``,
which therefore must lie in a band around the moments of the participant's own images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from instahide.data import ImageTable
from instahide.data.normalization.channel_statistics import ChannelStatistics
from instahide.data.normalization.normalization import require_sign_balance
from instahide.errors import InstaHideError
from instahide.integrations.flower.errors import RefusalError

#: Largest distance of an agreed mean from the participant's own, in its own standard deviations.
#: With a bell-shaped histogram a channel then keeps 16% of its values on the rarer side of zero.
#: Wide enough for other scanners, whose means usually differ by a fraction of that.
MOST_MEAN_SHIFT = 1.0
#: Smallest agreed std over the participant's own: noise is then at least half as strong on a pixel
#: as under the participant's own normalization.
LEAST_STD_RATIO = 0.5
#: Largest agreed std over the participant's own. A larger one is secure, but values get small.
#: Wide, for a participant with low contrast (std 0.08) among others with high contrast (0.3).
MOST_STD_RATIO = 4.0
#: No pixels between 0 and 1 have a larger std; `ImageTable` gives a constant channel a std of 1.
LARGEST_STD = 0.5


def require_near(images: ImageTable, mean: Sequence[float], std: Sequence[float]) -> None:
    """Check that a server's normalization lies in the band around that of ``images``.

    Args:
        images: the participant's images, under their own normalization.
        mean: per channel, of pixel / 255, as the server sent it; checked to be finite.
        std: per channel, likewise.

    Raises:
        RefusalError: a value lies outside the band, or there is not one value for each channel.
    """
    channels = images.shape[0]
    if not len(mean) == len(std) == channels:
        raise RefusalError(
            f"The server sends {len(mean)} means and {len(std)} standard deviations; "
            f"this participant's images have {channels} channels.",
            "Send one of each for each channel.",
        )
    for channel in range(channels):
        own_mean, own_std = images.mean[channel], images.std[channel]
        if own_std > LARGEST_STD:
            continue  # A constant channel has nothing to hide.
        if abs(mean[channel] - own_mean) > MOST_MEAN_SHIFT * own_std:
            raise _outside("mean", mean[channel], channel)
        if not LEAST_STD_RATIO * own_std <= std[channel] <= MOST_STD_RATIO * own_std:
            raise _outside("std", std[channel], channel)


def require_signs(conforming: ImageTable) -> None:
    """Check that a mask hides the values of ``conforming``, the images as they will be encoded.

    Raises:
        RefusalError: nearly all values of a channel have one sign.
    """
    try:
        require_sign_balance(ChannelStatistics.of_images(conforming))
    except InstaHideError as error:
        # Its message has values of the images, and stays in the participant's log.
        raise RefusalError(
            "Under the server's `mean` nearly all values of this participant's images have one "
            "sign, so that the mask would hide too little.",
            "Leave `mean` and `std` out of the run config to have them measured.",
        ) from error


def _outside(name: str, value: float, channel: int) -> RefusalError:
    # The bounds are not sent: they would reveal the participant's own mean and std.
    shown = f"{value:.3g}" if math.isfinite(value) else "not finite"
    return RefusalError(
        f"The server's {name} of {shown} in channel {channel} is too far from that of this "
        "participant's images: the mask or the noise would hide too little.",
        "Leave `mean` and `std` out of the run config to have them measured, or check that all "
        "participants have the same kind of images.",
    )

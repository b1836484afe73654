"""How images are normalized, and whether their values say the same.

A normalization comes from outside: from a transform, an argument, a server. Each check compares it
with the values. Measured on real images under their own moments, the rarer sign has 50% of the
magnitude by definition; ``docs/pitfalls.md`` has the figures for other moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from instahide.errors import DataError

if TYPE_CHECKING:
    from instahide.data.normalization.channel_statistics import ChannelStatistics

#: Least share of the rarer sign in the sum of the values' magnitudes, per channel. MNIST, its
#: background 81% of all values, has 0.11 when it is normalized with mean 0.5, and 0.012 with mean
#: 0.002; Fashion-MNIST 0.22 and 0.0035; photographs with ImageNet's mean 0.07 to 0.45.
LEAST_SIGN_SHARE = 0.05
#: The same while fewer than `FEW_IMAGES` images were seen, which may all be bright or dark.
LEAST_SIGN_SHARE_OF_FEW = 0.02
#: Where fewer values than this share have the rarer sign, they must have `SPARSE_SIGN_SHARE` of the
#: magnitude, as the few white pixels of a mask have under its own mean.
LEAST_VALUE_SHARE, SPARSE_SIGN_SHARE = 0.01, 0.15
#: Fewer images than this are no sample of a data set.
FEW_IMAGES = 16
#: How far beyond 0 and 1 values may lie before the normalization: bfloat16 rounds by 0.004.
TOLERANCE = 0.01
#: Least part of 0..1 that images fill in the channel that fills most. Of 16 digits, garments or
#: photographs the least seen was 0.9; an X-ray with a black border filled 0.55; images that never
#: pass a fifth of full brightness are better rescaled, as public images would drown them.
FILLED = 0.2
#: The same while fewer than `FEW_IMAGES` images were seen.
FILLED_BY_FEW = 0.05
#: Greatest ratio of the magnitudes of private and public images, per channel. The least seen
#: under own moments is that of masks with 1 white pixel in 1,000, 17 times below photographs.
SPREAD_FACTOR = 20.0
#: Greatest magnitude of a table's values, and 1 / least; 1 under the images' own moments.
SCALE_FACTOR = 10.0


#: Numbers per channel.
_PerChannel = Sequence[float] | NDArray[np.float64]


class Normalization(NamedTuple):
    """What images were normalized with, per channel: ``(pixel / 255 - mean) / std``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, mean: _PerChannel, std: _PerChannel) -> Self:
        """From numbers per channel, of pixel / 255 or, where a mean is above 1, of pixels to 255.

        Raises:
            InstaHideError: not as many means as deviations, not finite, or a deviation of 0.
        """
        known = cls.of_values(mean, std)
        unit = 255.0 if max(known.mean) > 1 else 1.0
        return cls(*(tuple(value / unit for value in each) for each in known))

    @classmethod
    def of_values(cls, mean: _PerChannel, std: _PerChannel) -> Self:
        """From numbers per channel, in the unit of the values that are normalized.

        Raises:
            DataError: as `of`.
        """
        values = [np.asarray(each, np.float64).reshape(-1) for each in (mean, std)]
        if len(values[0]) != len(values[1]) or not len(values[0]):
            raise DataError(
                f"There are {len(values[0])} means and {len(values[1])} standard deviations.",
                "Give one of each for every channel.",
            )
        if not all(np.isfinite(each).all() for each in values) or (values[1] <= 0).any():
            raise DataError(
                f"A mean of {_numbers(values[0])} with a standard deviation of "
                f"{_numbers(values[1])} is no normalization.",
                "Give finite means, and standard deviations above 0.",
            )
        return cls(*(tuple(each.tolist()) for each in values))

    def __str__(self) -> str:
        return f"mean {_numbers(self.mean)}, std {_numbers(self.std)}"


def compose_normalizations(first: Normalization, second: Normalization) -> Normalization:
    """The normalization that ``first`` and then ``second`` amount to.

    Raises:
        DataError: they are of different numbers of channels, neither being 1.
    """
    channels = {len(first.mean), len(second.mean)} - {1}
    if len(channels) > 1:
        raise DataError(
            f"The images are normalized twice, for {len(first.mean)} channels and for "
            f"{len(second.mean)}.",
            "Normalize once, with one mean and standard deviation a channel.",
        )
    means, stds = (
        [np.broadcast_to(np.asarray(each[part]), max(channels, default=1)) for part in (0, 1)]
        for each in zip(first, second, strict=True)
    )
    mean, std = means[0] + stds[0] * means[1], stds[0] * stds[1]
    return Normalization(tuple(mean.tolist()), tuple(std.tolist()))


def require_sign_balance(seen: ChannelStatistics, remedy: str | None = None) -> None:
    """Check that the values of every channel have both signs, as a mask needs to hide anything.

    |mask * x| is |x|: of values of one sign it is all of x. A channel with one value has nothing
    to hide.

    Args:
        seen: of normalized images.
        remedy: what the caller's user can do; by default, to normalize to mean 0.

    Raises:
        DataError: the rarer sign has too small a share of a channel.
    """
    share = seen.rarer_sign
    least = LEAST_SIGN_SHARE if seen.images >= FEW_IMAGES else LEAST_SIGN_SHARE_OF_FEW
    sparse = (seen.rarer_values < LEAST_VALUE_SHARE) & (share < SPARSE_SIGN_SHARE)
    unhidden = seen.varied & ((share < least) | sparse)
    if unhidden.any():
        channel = int(np.flatnonzero(unhidden)[0])
        raise DataError(
            f"After normalization the values of channel {channel} run from "
            f"{seen.low[channel]:.3g} to {seen.high[channel]:.3g} and are nearly all of one sign: "
            f"the other has {share[channel]:.2%} of their magnitude and "
            f"{seen.rarer_values[channel]:.2%} of their number. The mask would hide nothing: an "
            "encoding's absolute value would be the mix itself.",
            remedy or "Normalize to mean 0, with the images' own mean and standard deviation.",
        )


def require_consistent_normalization(
    seen: ChannelStatistics, normalization: Normalization, remedy: str | None = None
) -> None:
    """Check that images which were normalized elsewhere have the values that it would give them.

    They lie between (0 - mean) / std and (1 - mean) / std, and fill a part of that interval.

    Args:
        seen: of normalized images.
        normalization: what they are said to be normalized with.
        remedy: what the caller's user can do.

    Raises:
        DataError: the values say otherwise.
    """
    _require_channels(seen, normalization)
    mean, std = np.asarray(normalization.mean), np.asarray(normalization.std)
    low, high = seen.low * std + mean, seen.high * std + mean
    least = FILLED if seen.images >= FEW_IMAGES else FILLED_BY_FEW
    if low.min() < -TOLERANCE or high.max() > 1 + TOLERANCE:
        reason = "some lie outside"
    elif (seen.low >= 0).all() and seen.varied.any():
        reason = "none is negative, as before a normalization"
    elif (high - low).max() < least and seen.varied.any():
        reason = f"they fill {(high - low).max():.1%} of it, less than {least:.0%}"
    else:
        return
    raise DataError(
        f"The values of the private images run from {_numbers(seen.low)} to "
        f"{_numbers(seen.high)}. With {normalization} they would lie between "
        f"{_numbers(-mean / std)} and {_numbers((1 - mean) / std)}; {reason}. Public images "
        "normalized with it would not look like the private ones.",
        remedy
        or "Give mean= and std= of the one Normalize that the transform ends with, of images from "
        "0 to 1. Let nothing after it change values, and bring images to 0..1 before it.",
    )


def require_similar_spread(
    private: ChannelStatistics, public: ChannelStatistics, *, query: bool = False
) -> None:
    """Check that private and public images are of comparable magnitude after normalization.

    Args:
        private: of normalized images.
        public: likewise.
        query: whether the private ones are queries, which may be flat images.

    Raises:
        DataError: one of them would drown the other in a mix.
    """
    if len(private.low) != len(public.low):
        raise DataError(
            f"Private images have {len(private.low)} channels, public ones {len(public.low)}.",
            "Make a pool of the private images' shape.",
        )
    both = private.varied & public.varied
    if not both.any():
        return
    ratios = private.magnitude[both] / np.maximum(public.magnitude[both], 1e-12)
    largest, smallest = float(ratios.max()), float(ratios.min())
    if largest > SPREAD_FACTOR or (smallest < 1 / SPREAD_FACTOR and not query):
        hidden = "private" if smallest < 1 / SPREAD_FACTOR else "public"
        raise DataError(
            f"After normalization private images have magnitudes of {_numbers(private.magnitude)} "
            f"a channel, public ones of {_numbers(public.magnitude)}: they differ by more than a "
            f"factor of {SPREAD_FACTOR:g}, so that the {hidden} ones are lost in a mix.",
            "Normalize both alike, with the private images' mean and standard deviation; of very "
            "dark images, stretch the contrast, or use public images that look like them.",
        )


def require_plausible_scale(seen: ChannelStatistics) -> None:
    """Check that the standard deviation that pixels were divided by is of their order.

    Raises:
        DataError: the normalized values are far larger or smaller than 1.
    """
    magnitudes = seen.magnitude[seen.varied]
    small = seen.images >= FEW_IMAGES and (magnitudes < 1 / SCALE_FACTOR).any()
    if small or (magnitudes > SCALE_FACTOR).any():
        raise DataError(
            f"After normalization the values have magnitudes of {_numbers(seen.magnitude)} a "
            f"channel; they must be between {1 / SCALE_FACTOR:g} and {SCALE_FACTOR:g}.",
            "Use the images' own mean and standard deviation, of pixel / 255.",
        )


def require_possible_moments(normalization: Normalization) -> None:
    """Check that images from 0 to 1 can have such moments, give or take a factor of 2.

    With mean m their standard deviation is at most sqrt(m (1 - m)) (Bhatia and Davis, 2000).

    Raises:
        DataError: they cannot.
    """
    mean, std = np.asarray(normalization.mean), np.asarray(normalization.std)
    most = np.sqrt(np.maximum(mean * (1 - mean), 0))
    # A channel with one value has no spread: its deviation is taken to be 1.
    if (std > np.where(std == 1, np.inf, 2 * most)).any():
        raise DataError(
            f"No images have {normalization}: with such a mean the standard deviation is at most "
            f"{_numbers(most)}.",
            "Give the images' own mean and standard deviation, of pixel / 255.",
        )


def _require_channels(seen: ChannelStatistics, normalization: Normalization) -> None:
    if len(normalization.mean) not in (1, len(seen.low)):
        raise DataError(
            f"The images have {len(seen.low)} channels, but there are {len(normalization.mean)} "
            f"means and {len(normalization.std)} standard deviations.",
            "Give one of each for every channel.",
        )


def _numbers(values: _PerChannel) -> str:
    return ", ".join(f"{value:.4g}" for value in np.asarray(values).reshape(-1))

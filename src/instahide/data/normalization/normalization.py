"""`Normalization`, and checks that the values of images agree with a stated one.

A normalization is stated by a transform, an argument or a server, and may be wrong. Each check
compares it with values. If images are normalized by their own mean, the rarer sign has 50% of the
magnitude by definition; ``docs/pitfalls.md`` lists measurements for other means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from instahide.data.pixels import EIGHT_BIT, ValueRange
from instahide.errors import DataError

if TYPE_CHECKING:
    from instahide.data.normalization.channel_statistics import ChannelStatistics

#: Least share of the rarer sign in the sum of the values' magnitudes, per channel. MNIST, its
#: background 81% of all values, has 0.11 when it is normalized with mean 0.5, and 0.012 with mean
#: 0.002; Fashion-MNIST 0.22 and 0.0035; photographs with ImageNet's mean 0.07 to 0.45.
LEAST_SIGN_SHARE = 0.05
#: The same while fewer than `FEW_IMAGES` images were seen, which may all be bright or dark.
LEAST_SIGN_SHARE_OF_FEW = 0.02
#: If the rarer sign has a smaller share of the values than this, it must have a share of
#: `SPARSE_SIGN_SHARE` in the magnitude, as the few white pixels of a segmentation mask do.
LEAST_VALUE_SHARE, SPARSE_SIGN_SHARE = 0.01, 0.15
#: Fewer images than this are not representative of a data set.
FEW_IMAGES = 16
#: Tolerance at 0 and 1 for values before the normalization; bfloat16 rounds by 0.004.
TOLERANCE = 0.01
#: Least part of 0..1 that the values of images must cover in the best channel. For 16 digits,
#: garments or photographs the smallest measured was 0.9; an X-ray with a black border covered 0.55.
#: Darker images should be rescaled, because public images would dominate their mixes.
FILLED = 0.2
#: The same while fewer than `FEW_IMAGES` images were seen.
FILLED_BY_FEW = 0.05
#: Largest ratio of the magnitudes of private and public images, per channel. Segmentation masks
#: with 1 white pixel in 1,000, normalized by their own mean and std, are 17 times below
#: photographs.
SPREAD_FACTOR = 20.0
#: Largest magnitude of a table's values, and 1 / smallest; 1 under their own mean and std.
SCALE_FACTOR = 10.0


#: One number per channel.
_PerChannel = Sequence[float] | NDArray[np.float64]


class Normalized(Protocol):
    """Whatever states the mean and the standard deviation of its channels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """One value per channel."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """One value per channel."""
        ...

    @property
    def value_range(self) -> ValueRange:
        """The pixel values that are 0 and 1 before normalization."""
        ...


class Normalization(NamedTuple):
    """What images were normalized with, per channel: ``(unit - mean) / std``.

    ``unit`` is ``(pixel - low) / (high - low)`` with the ``value_range``: pixel / 255 by default.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: ValueRange = EIGHT_BIT

    @classmethod
    def of(cls, mean: _PerChannel, std: _PerChannel) -> Self:
        """From numbers per channel, of pixel / 255; of pixels up to 255 if a mean exceeds 1.

        Raises:
            InstaHideError: there are not as many means as standard deviations, a number is not
                finite, or a standard deviation is not positive.
        """
        known = cls.of_values(mean, std)
        unit = 255.0 if max(known.mean) > 1 else 1.0
        mean, std = (tuple(value / unit for value in each) for each in (known.mean, known.std))
        return cls(mean, std)

    @classmethod
    def of_values(cls, mean: _PerChannel, std: _PerChannel) -> Self:
        """From numbers per channel, in units of the values that are normalized.

        Raises:
            DataError: as for `of`.
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
                f"{_numbers(values[1])} is not a normalization.",
                "Give finite means, and standard deviations above 0.",
            )
        return cls(tuple(values[0].tolist()), tuple(values[1].tolist()))

    def __str__(self) -> str:
        return f"mean {_numbers(self.mean)}, std {_numbers(self.std)}"


def compose_normalizations(first: Normalization, second: Normalization) -> Normalization:
    """The normalization equal to ``first`` followed by ``second``.

    Raises:
        DataError: they have different numbers of channels, neither of which is 1.
    """
    channels = {len(first.mean), len(second.mean)} - {1}
    if len(channels) > 1:
        raise DataError(
            f"The images are normalized twice, for {len(first.mean)} channels and for "
            f"{len(second.mean)}.",
            "Normalize once, with one mean and standard deviation a channel.",
        )
    means, stds = (
        [np.broadcast_to(np.asarray(part), max(channels, default=1)) for part in both]
        for both in ((first.mean, second.mean), (first.std, second.std))
    )
    mean, std = means[0] + stds[0] * means[1], stds[0] * stds[1]
    return Normalization(tuple(mean.tolist()), tuple(std.tolist()), first.value_range)


def require_sign_balance(statistics: ChannelStatistics, remedy: str | None = None) -> None:
    """Check that the values of every channel have both signs, without which a mask hides nothing.

    |mask * x| is |x|, which equals x or -x if all values have one sign. A channel with a single
    value holds nothing to hide and is not checked.

    Args:
        statistics: statistics of normalized images.
        remedy: what the user can do, for the message; by default, to normalize to mean 0.

    Raises:
        DataError: the rarer sign has too small a share of a channel.
    """
    share = statistics.rarer_sign
    least = LEAST_SIGN_SHARE if statistics.images >= FEW_IMAGES else LEAST_SIGN_SHARE_OF_FEW
    sparse = (statistics.rarer_values < LEAST_VALUE_SHARE) & (share < SPARSE_SIGN_SHARE)
    unhidden = statistics.varied & ((share < least) | sparse)
    if unhidden.any():
        channel = int(np.flatnonzero(unhidden)[0])
        raise DataError(
            f"After normalization the values of channel {channel} run from "
            f"{statistics.low[channel]:.3g} to {statistics.high[channel]:.3g} and are nearly all "
            f"of one sign: the other has {share[channel]:.2%} of their magnitude and "
            f"{statistics.rarer_values[channel]:.2%} of their number. The mask would hide nothing: "
            "an encoding's absolute value would be the mix itself.",
            remedy or "Normalize to mean 0, with the images' own mean and standard deviation.",
        )


def require_consistent_normalization(
    statistics: ChannelStatistics, normalization: Normalization, remedy: str | None = None
) -> None:
    """Check that the values of images agree with a stated normalization.

    They must lie between (0 - mean) / std and (1 - mean) / std and cover a part of that interval.

    Args:
        statistics: statistics of normalized images.
        normalization: the stated normalization.
        remedy: what the user can do, for the message.

    Raises:
        DataError: the values do not agree with it.
    """
    _require_channels(statistics, normalization)
    mean, std = np.asarray(normalization.mean), np.asarray(normalization.std)
    low, high = statistics.low * std + mean, statistics.high * std + mean
    least = FILLED if statistics.images >= FEW_IMAGES else FILLED_BY_FEW
    if low.min() < -TOLERANCE or high.max() > 1 + TOLERANCE:
        reason = "some lie outside"
    elif (statistics.low >= 0).all() and statistics.varied.any():
        reason = "none is negative, as before a normalization"
    elif (high - low).max() < least and statistics.varied.any():
        reason = f"they fill {(high - low).max():.1%} of it, less than {least:.0%}"
    else:
        return
    raise DataError(
        f"The values of the private images run from {_numbers(statistics.low)} to "
        f"{_numbers(statistics.high)}. With {normalization} they would lie between "
        f"{_numbers(-mean / std)} and {_numbers((1 - mean) / std)}; {reason}. Public images "
        "normalized with it would not look like the private ones.",
        remedy
        or "Scale images to 0..1, end the transform with one Normalize, without other changes of "
        "values after it, and pass its mean= and std=.",
    )


def require_similar_spread(
    private: ChannelStatistics, public: ChannelStatistics, *, query: bool = False
) -> None:
    """Check that private and public images have comparable magnitudes after normalization.

    Args:
        private: statistics of the normalized private images.
        public: statistics of the normalized public images.
        query: whether the private images are queries, which may be nearly constant.

    Raises:
        DataError: the private or the public images would dominate every mix.
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


def require_plausible_scale(statistics: ChannelStatistics) -> None:
    """Check that the standard deviation of a normalization has a plausible order of magnitude.

    Raises:
        DataError: normalized values are far larger or smaller than 1.
    """
    magnitudes = statistics.magnitude[statistics.varied]
    small = statistics.images >= FEW_IMAGES and (magnitudes < 1 / SCALE_FACTOR).any()
    if small or (magnitudes > SCALE_FACTOR).any():
        raise DataError(
            f"After normalization the values have magnitudes of {_numbers(statistics.magnitude)} a "
            f"channel; they must be between {1 / SCALE_FACTOR:g} and {SCALE_FACTOR:g}.",
            "Use the images' own mean and standard deviation, of pixel / 255.",
        )


def require_possible_moments(normalization: Normalization) -> None:
    """Check that images from 0 to 1 can have this mean and std, up to a factor of 2.

    With mean m, their standard deviation is at most sqrt(m (1 - m)) (Bhatia and Davis, 2000).

    Raises:
        DataError: a standard deviation is too large for its mean.
    """
    mean, std = np.asarray(normalization.mean), np.asarray(normalization.std)
    most = np.sqrt(np.maximum(mean * (1 - mean), 0))
    # A channel with a single value has no spread; its std is set to 1.
    if (std > np.where(std == 1, np.inf, 2 * most)).any():
        raise DataError(
            f"No images have {normalization}: with such a mean the standard deviation is at most "
            f"{_numbers(most)}.",
            "Give the images' own mean and standard deviation, of pixel / 255.",
        )


def _require_channels(statistics: ChannelStatistics, normalization: Normalization) -> None:
    if len(normalization.mean) not in (1, len(statistics.low)):
        raise DataError(
            f"The images have {len(statistics.low)} channels, but there are "
            f"{len(normalization.mean)} means and {len(normalization.std)} standard deviations.",
            "Give one of each for every channel.",
        )


def _numbers(values: _PerChannel) -> str:
    return ", ".join(f"{value:.4g}" for value in np.asarray(values).reshape(-1))

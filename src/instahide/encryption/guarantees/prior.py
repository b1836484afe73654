"""A floor on the error of any reconstruction, biased or not, by van Trees' inequality.

Van Trees' inequality adds the information of the prior to that of the encodings. It bounds the
error on average over the prior, of any estimator. But the prior of images is unknown, and every
estimate of its information from samples is too low: an attacker may predict images better than the
estimate. So this floor, other than `error_floor.unbiased_floor`, rests on the estimated prior, and
is no guarantee. docs/guarantees.md states what is assumed.

The assumption: given all other values of an image, a value is normal, and its variance is the
smallest of three squared errors of prediction on public images: by a linear function of its
neighbors, by black, and by white. The information of the prior about the value is then the inverse
of this variance. The information of the encodings about a value depends on its channel.

Source: Gill and Levit, "Applications of the van Trees Inequality" (Bernoulli, 1995); Maeng et al.,
"Bounding the Invertibility of Privacy-preserving Instance Encoding using Fisher Information"
(NeurIPS 2023, arXiv:2305.04146), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from instahide.data.table import ImageTable
from instahide.encryption.guarantees.error_floor import psnr_text, shown_floor
from instahide.errors import DataError, InstaHideError

#: Images that the prior is estimated from, at most: one half fits the prediction, the other tests.
MOST_IMAGES = 2000
#: Images without which there is no estimate.
LEAST_IMAGES = 20
#: Values of these images, at most, except of the fewest images.
MOST_IN_MEMORY = 20_000_000
#: Values whose prediction is fitted, at most.
MOST_VALUES = 50_000
#: Neighbors within so many pixels predict a pixel: of images, and of volumes.
RADIUS = {2: 2, 3: 1}
#: Standard errors that are subtracted from a mean over images: a one-sided interval of 95 %.
_STANDARD_ERRORS = 1.645


@dataclass(frozen=True, eq=False)
class PixelPrior:
    """What public images say about how well a value is predicted by the rest of its image.

    Attributes:
        variances: (n, values) squared errors of prediction of n public images, in squares of the
            unit range.
        images: number of public images that were used, those of the fit included.
        channels: number of channels of an image, each with equally many of the values in a row.
    """

    variances: NDArray[np.float64]
    images: int
    channels: int = 1

    @property
    def deviation(self) -> float:
        """Root mean square error of the prediction, in the unit range."""
        return math.sqrt(float(self.variances.mean()))

    def statement(
        self, loss: float | None, std: Sequence[float] | None = None, scope: str = ""
    ) -> str:
        """The sentence on this floor that commands and reports print.

        Args:
            loss: largest mu^2 of an image; None if it is unknown, infinite without noise.
            std: as for `floor`.
            scope: text that says which encodings the reconstruction is from.
        """
        name = "Error floor with a prior"
        if loss is None or not 0 < loss < math.inf:
            return f"{name}: none"
        floor = self.floor(loss, std)
        if floor == 0:
            return f"{name}: none (too many values of the public images are predictable)"
        return (
            f"{name}: mean squared error of at least {shown_floor(floor)}, so PSNR of at most "
            f"{psnr_text(floor)} dB, for any reconstruction{scope}, on average over images like "
            f"the {self.images:,} public ones. This rests on a prior estimated from them, and is "
            f"false if an attacker predicts values better than to {self.deviation:.2g} of the range"
        )

    def floor(self, loss: float, std: Sequence[float] | None = None) -> float:
        """The least mean squared error of any estimator, on average over images of this prior.

        Args:
            loss: mu^2 of an image, as for `error_floor.unbiased_floor`.
            std: std of the normalization of each channel, if it is that of all encodings that
                ``loss`` counts. None if it is unknown: every channel may then have all of the loss,
                so that the floor is lower.

        Returns:
            The lower end of a one-sided confidence interval of 95 % over the public images.

        Raises:
            InstaHideError: ``std`` has another number of channels than the images.
        """
        if math.isinf(loss):
            return 0.0
        variances = self.variances.reshape(len(self.variances), self.channels, -1)
        information = loss / variances.shape[2] * self._shares(std)[:, None]
        floors = (variances / (1 + information * variances)).mean(axis=(1, 2))
        error = floors.std(ddof=1) / math.sqrt(len(floors))
        return max(0.0, float(floors.mean() - _STANDARD_ERRORS * error))

    def _shares(self, std: Sequence[float] | None) -> NDArray[np.float64]:
        """(channels,) the largest possible share of each channel in the loss of an image."""
        if std is None:
            return np.ones(self.channels)
        if len(std) != self.channels:
            raise InstaHideError(
                f"There are {len(std)} standard deviations, and {self.channels} channels.",
                "Give the std of the normalization of each channel.",
            )
        inverse = 1 / np.square(np.asarray(std, np.float64))
        shares: NDArray[np.float64] = inverse / inverse.sum()
        return shares


def estimate_prior(images: ImageTable) -> PixelPrior:
    """Estimate the prior of images like the public ``images``.

    Raises:
        DataError: there are fewer than `LEAST_IMAGES`.
    """
    if len(images) < LEAST_IMAGES:
        raise DataError(
            f"{len(images)} public images are too few to estimate a prior from.",
            f"Use {LEAST_IMAGES} or more.",
        )
    fitting = max(LEAST_IMAGES, MOST_IN_MEMORY // math.prod(images.shape))
    count = min(len(images), MOST_IMAGES, fitting)
    rows = np.linspace(0, len(images) - 1, count).astype(np.int64)
    fitted, tested = unit_values(images, rows[::2]), unit_values(images, rows[1::2])
    errors = [_prediction_errors(fitted, tested, channel) for channel in range(images.shape[0])]
    # The smallest of the three, even for an attacker who always knows which one it is.
    least = np.minimum.reduce([np.abs(np.stack(errors, axis=1)), tested, 1 - tested])
    return PixelPrior(np.square(least.reshape(len(tested), -1)), count, images.shape[0])


def unit_values(images: ImageTable, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, C, H, W) or (n, C, D, H, W) values of ``rows`` (n,) in the unit range, 0 to 1."""
    low, high = images.value_range
    chosen = images.rows(rows)
    return (chosen.pixels[chosen.positions].astype(np.float64) - low) / (high - low)


def _prediction_errors(
    fitted: NDArray[np.float64], tested: NDArray[np.float64], channel: int
) -> NDArray[np.float64]:
    """(n, H, W) errors on ``tested`` (n, C, H, W) of a linear prediction from the neighbors."""
    places = fitted[:, channel].size
    step = max(1, places // MOST_VALUES)
    inputs = np.stack([each.reshape(-1)[::step] for each in _neighbors(fitted, channel)], axis=1)
    targets = fitted[:, channel].reshape(-1)[::step]
    weights, *_ = np.linalg.lstsq(inputs, targets, rcond=None)
    errors = tested[:, channel].copy()
    for weight, values in zip(weights, _neighbors(tested, channel), strict=True):
        errors -= weight * values
    return errors


def _neighbors(images: NDArray[np.float64], channel: int) -> Iterator[NDArray[np.float64]]:
    """All values near each value of ``channel``, of all channels, and 1; each (n, H, W)."""
    sides = images.shape[2:]
    radii = [min(RADIUS[len(sides)], side - 1) for side in sides]
    # Mirrored without the border itself, so that no value predicts itself.
    padded = np.pad(images, [(0, 0), (0, 0), *((r, r) for r in radii)], mode="reflect")
    yield np.ones(images[:, channel].shape)
    for shift in product(*(range(2 * radius + 1) for radius in radii)):
        window = [slice(s, s + side) for s, side in zip(shift, sides, strict=True)]
        own = all(s == radius for s, radius in zip(shift, radii, strict=True))
        for other in range(images.shape[1]):
            if not (own and other == channel):
                yield padded[:, other][(slice(None), *window)]

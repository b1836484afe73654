"""`LossLimit`: a limit on the privacy loss (mu^2) of an image, for a floor or an epsilon.

The unbiased error floor, epsilon and the bound on reconstruction each follow from the loss of an
image alone, so that one limit on the loss holds each of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from instahide.encryption.guarantees.error_floor import largest_loss_for
from instahide.encryption.privacy import ROUNDING, mu_squared_rate
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


@dataclass(frozen=True)
class LossLimit:
    """The largest loss of an image. Use `for_min_mse`.

    Attributes:
        most: largest mu^2 of an image, over all its encodings.
        rate: mu^2 of an encoding with coefficient 1.
        c1: largest coefficient. An image is drawn only if an encoding with this coefficient keeps
            it within the limit, so that the limit changes no distribution of coefficients.
    """

    most: float
    rate: float
    c1: float

    @classmethod
    def for_min_mse(
        cls, min_mse: float, scheme: Scheme, shape: tuple[int, ...], std: Sequence[float] | None
    ) -> Self:
        """The limit that keeps the unbiased error floor of an image at ``min_mse`` or above.

        Args:
            min_mse: least mean squared error of unbiased estimators, in squares of the unit range
                of pixels.
            scheme: the scheme that encrypts.
            shape: (C, H, W) of an image.
            std: the divisor of pixels in the unit range; None if it is unknown.

        Raises:
            InstaHideError: ``min_mse`` is not a positive number; the scheme has no noise, or
                too little for even one encoding; or ``std`` is unknown.
        """
        values = math.prod(shape)
        rate = mu_squared_rate(scheme, shape, std)
        most = largest_loss_for(min_mse, values) * ROUNDING
        require_noise(scheme)
        if std is None:
            raise InstaHideError(
                "The mean and std of the images' transform are unknown, so min_mse cannot be kept.",
                "Pass mean= and std=.",
            )
        if scheme.c1**2 * rate > most:
            least = scheme.noise * (scheme.c1**2 * rate / most) ** 0.5
            raise InstaHideError(
                f"With noise = {scheme.noise:g}, one encoding of an image may already leave a "
                f"floor below min_mse = {min_mse:g}.",
                f"Use a noise of {least * 1.005:.3g} or more, or a lower min_mse.",
            )
        return cls(most, rate, scheme.c1)

    @property
    def step(self) -> float:
        """The largest loss by one encoding."""
        return self.c1**2 * self.rate

    def further(self, losses: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) encodings that an image with each of ``losses`` (N,) may certainly still go into."""
        left = np.maximum(self.most - losses, 0.0)
        return np.minimum(np.floor(left / self.step), 2.0**62).astype(np.int64)

    def exhausted(self, losses: NDArray[np.float64]) -> NDArray[np.bool]:
        """(N,) whether the next encoding could bring an image of ``losses`` (N,) too far."""
        return losses + self.step > self.most

    def within(
        self,
        rows: NDArray[np.int64],
        coefficients: NDArray[np.float32],
        losses: NDArray[np.float64],
    ) -> int:
        """The number of first mixes of ``rows`` (n, p) that keep every image within the limit.

        Args:
            rows: images of each mix, distinct within a mix; -1 for an empty place.
            coefficients: (n, p) of these images.
            losses: (N,) losses of the images before.
        """
        flat = rows.reshape(-1)
        added = np.square(coefficients.reshape(-1), dtype=np.float64) * self.rate
        order = np.argsort(flat, kind="stable")
        images, added = flat[order], added[order]
        sums = np.cumsum(added) - added
        # Losses by earlier mixes of the same image.
        earlier = sums - sums[np.searchsorted(images, images)]
        after = losses[images] + earlier + np.maximum(added, self.step)
        beyond = order[(after > self.most) & (images >= 0)]
        return int(beyond.min()) // rows.shape[1] if len(beyond) else len(rows)


def require_noise(scheme: Scheme) -> None:
    """Check that encodings have a floor at all.

    Raises:
        InstaHideError: the scheme has no noise.
    """
    if not scheme.noise:
        raise InstaHideError(
            "Without noise there is no floor on the error of a reconstruction, so min_mse cannot "
            "be kept.",
            "Add noise, or limit the number of encodings instead.",
        )

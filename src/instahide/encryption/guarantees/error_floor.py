"""A floor on the error of reconstructed images, from the Fisher information of their encodings.

All encodings that contain an image tell an attacker who knows every key and every other image no
more than a normal variable with mean x and variance std^2 noise^2 / S for each value of a channel,
where S is the sum of the squared coefficients of the image. The sum of this information over all
values is the mu^2 that `encryption/privacy.py` counts as the loss of the image. The Cramer-Rao
bound turns it into a floor. docs/guarantees.md derives this and lists what it does not cover.

Errors are mean squared errors per value, in the unit range of pixels (0 to 1, as pixel / 255).

Source: Hannun, Guo and van der Maaten, "Measuring Data Leakage in Machine-Learning Models with
Fisher Information" (UAI 2021, arXiv:2102.11673); Guo et al., "Bounding Training Data Reconstruction
in Private (Deep) Learning" (ICML 2022, arXiv:2201.12383); Maeng et al., "Bounding the Invertibility
of Privacy-preserving Instance Encoding using Fisher Information" (NeurIPS 2023, arXiv:2305.04146).
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

from instahide.errors import InstaHideError

#: Three digits, rounded such that a floor is never overstated and a ceiling never understated.
_DOWNWARDS = Context(prec=3, rounding=ROUND_FLOOR)
_UPWARDS = Context(prec=3, rounding=ROUND_CEILING)


def unbiased_floor(loss: float, values: int) -> float:
    """The least mean squared error of an unbiased estimator of an image.

    It holds for every image, and says nothing about biased estimators: for these see
    `prior.PixelPrior.floor`.

    Args:
        loss: mu^2 of the image, as in `privacy.mu_squared_rate`, summed over its encodings: the
            Fisher information of all its values together.
        values: number of values of the image, C * H * W.

    Returns:
        The floor, in squares of the unit range of pixels: 0 if an encoding has no noise, infinite
        without any encoding.

    Examples:
        >>> from instahide import Scheme
        >>> from instahide.encryption.guarantees.error_floor import unbiased_floor
        >>> from instahide.encryption.privacy import mu_squared_rate
        >>> rate = mu_squared_rate(Scheme.inside(4, noise=2.0), (1, 8, 8), [0.25])
        >>> unbiased_floor(0.5 * rate, 64)  # std^2 noise^2 / S, with S = 0.5
        0.5
    """
    return values / loss if loss > 0 else math.inf


def largest_loss_for(min_mse: float, values: int) -> float:
    """The largest mu^2 of an image of ``values`` whose unbiased floor is at least ``min_mse``.

    Raises:
        InstaHideError: ``min_mse`` is not a positive number.
    """
    require_min_mse(min_mse)
    return values / min_mse


def require_min_mse(min_mse: float) -> None:
    """Check that a floor is a positive number.

    Raises:
        InstaHideError: ``min_mse`` is not a positive number.
    """
    if not 0 < min_mse < math.inf:
        raise InstaHideError(
            f"A mean squared error of {min_mse} cannot be a floor.",
            "Use a positive number, in squares of the unit range of pixels: 0.01 is a PSNR of 20.",
        )


def psnr_ceiling(mse: float) -> float:
    """The PSNR in dB of an image with this mean squared error; pixels are between 0 and 1."""
    return math.inf if mse <= 0 else -10 * math.log10(mse)


def floor_statement(floor: float | None, *, noise: bool, scope: str = "") -> str:
    """The sentence on the error floor that every command and every report prints.

    Args:
        floor: `unbiased_floor` of the least protected image; 0 if one of its encodings has no
            noise; infinite if none was counted; None if it is unknown here.
        noise: whether the scheme adds noise. Without noise there is no floor.
        scope: text that qualifies the floor, or says who knows it.
    """
    if not noise:
        return "Error floor: none (no noise added)"
    if floor is None:
        return f"Error floor: not known here{scope}"
    if floor == 0:
        return "Error floor: none (some encodings of these images have no noise)"
    if math.isinf(floor):
        return "Error floor: none claimed (no encoding of these images was counted)"
    return (
        f"Error floor: mean squared error of at least {shown_floor(floor)}, so PSNR of at most "
        f"{psnr_text(floor)} dB, for unbiased reconstructions (none for biased ones){scope}"
    )


def shown_floor(floor: float) -> str:
    """``floor`` with three digits, rounded down."""
    return f"{float(_DOWNWARDS.create_decimal(repr(float(floor)))):.3g}"


def psnr_text(floor: float) -> str:
    """`psnr_ceiling` of ``floor`` with three digits, rounded up."""
    ceiling = psnr_ceiling(floor)
    return "inf" if math.isinf(ceiling) else f"{float(_UPWARDS.create_decimal(repr(ceiling))):.3g}"

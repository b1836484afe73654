"""Differential privacy that noise gives to the pixels of an image; labels are taken to be public.

Two data sets are neighbors if they differ in the pixels of one private image, and in nothing else:
labels, partners, coefficients and the normalization are taken to be known. Given these, all
encodings that contain the image form one Gaussian mechanism, whose mean moves by at most

    mu = sensitivity * sqrt(sum of its squared coefficients) / noise

standard deviations. docs/noise.md derives this and lists what the guarantee does not cover.

Source: Dwork and Roth, "The Algorithmic Foundations of Differential Privacy" (2014), appendix A;
Balle and Wang, "Improving the Gaussian Mechanism" (ICML 2018, arXiv:1805.06530), theorem 8.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Context

import torch

from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.utils.optional_deps import requires_extra

#: Default delta.
DELTA = 1e-5
#: Smallest delta, chosen and not derived: noise of finite precision is not exactly normal.
LEAST_DELTA = 1e-9
#: Margin for the rounding of sums of many losses.
ROUNDING = 1 - 1e-9
#: Three digits, rounded up, so that an epsilon is never understated.
_UPWARDS = Context(prec=3, rounding=ROUND_CEILING)
_LEAST_EPSILON = 0.001


def sensitivity(shape: tuple[int, ...], std: Sequence[float]) -> float:
    """How far apart, in L2, two images of ``shape`` (C, H, W) can be once they are normalized.

    Pixels lie between 0 and 1 before the normalization, so nothing needs to be clipped.
    """
    # The hypotenuse neither overflows nor vanishes where squares of the deviations would.
    return math.sqrt(math.prod(shape[1:])) * math.hypot(*(1 / deviation for deviation in std))


def mu_squared_rate(scheme: Scheme, shape: tuple[int, ...], std: Sequence[float] | None) -> float:
    """What a squared coefficient of 1 adds to the mu^2 of an image.

    It is infinite without noise, and if ``std``, the divisor of pixel / 255, is unknown (None).
    """
    if not scheme.noise or std is None:
        return math.inf
    ratio = sensitivity(shape, std) / scheme.noise
    # A product overflows to infinity, and is never rounded to 0, which would claim perfect privacy.
    return max(ratio * ratio, sys.float_info.min)


def delta_of(epsilon: float, mu: float) -> float:
    """The smallest delta of a Gaussian mechanism whose mean moves by ``mu`` standard deviations."""
    # In logarithms: exp(epsilon) overflows float64 for large epsilon.
    inner, outer = torch.special.log_ndtr(
        torch.tensor([mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu], dtype=torch.float64)
    ).tolist()
    return math.exp(inner) - math.exp(min(0.0, epsilon + outer))


def epsilon_of(loss: float, delta: float = DELTA) -> float:
    """The smallest epsilon, rounded up, of an image whose mu^2 is ``loss``.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1.
    """
    require_delta(delta)
    return _epsilon(loss, delta)


def _epsilon(loss: float, delta: float) -> float:
    if not 0 < loss < math.inf:
        return loss
    mu = math.sqrt(loss)
    # At `high`, the probability of the tail beyond epsilon is below delta.
    high = loss / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    return _bisect(lambda epsilon: delta_of(epsilon, mu) > delta, high)[1]


def largest_loss(epsilon: float, delta: float) -> float:
    """The largest mu^2 whose epsilon at ``delta`` is at most ``epsilon``, rounded down.

    It leaves a margin for the rounding of sums of many losses.
    """
    # If delta is below one half, epsilon is above mu^2 / 2.
    return _bisect(lambda loss: epsilon_of(loss, delta) <= epsilon, 2 * epsilon)[0] * ROUNDING


def _bisect(holds: Callable[[float], bool], high: float) -> tuple[float, float]:
    """The neighboring floats between 0 and ``high`` at which ``holds`` becomes false."""
    low = 0.0
    while low < (middle := (low + high) / 2) < high:
        if holds(middle):
            low = middle
        else:
            high = middle
    return low, high


def epsilon_upper_bound(
    scheme: Scheme,
    shape: tuple[int, ...],
    std: Sequence[float],
    *,
    copies: int,
    limit: int | None = None,
    earlier: float = 0.0,
    delta: float = DELTA,
) -> float:
    """An upper bound of the epsilon of every image, known before any coefficient is drawn.

    Every coefficient is taken to be c1. An image is in at most ``limit`` encodings. Without a
    limit, it is in its own ``copies`` and in a number of other mixes that is exceeded with
    probability at most delta / 2, which is subtracted from delta. ``earlier`` is the loss of
    earlier encodings.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1.
    """
    require_delta(delta)
    if limit is None:
        delta /= 2
    loss = loss_upper_bound(
        scheme, shape, std, copies=copies, limit=limit, earlier=earlier, chance=delta
    )
    return _epsilon(loss, delta)


def loss_upper_bound(
    scheme: Scheme,
    shape: tuple[int, ...],
    std: Sequence[float],
    *,
    copies: int,
    limit: int | None = None,
    earlier: float = 0.0,
    chance: float = DELTA / 2,
) -> float:
    """An upper bound of the mu^2 of an image, known before any coefficient is drawn.

    As for `epsilon_upper_bound`; without a limit, it is exceeded with probability <= ``chance``.
    """
    if limit is None:
        limit = copies + max_partner_count(copies * (scheme.private_k - 1), chance)
    return earlier + scheme.c1**2 * limit * mu_squared_rate(scheme, shape, std)


def max_partner_count(mean: float, chance: float) -> int:
    """A number that a binomial variable with this ``mean`` exceeds with probability <= ``chance``.

    By Chernoff's bound: P(X >= b) <= exp(b - mean) (mean / b)^b for b above the mean.
    """
    if mean == 0:
        return 0

    def is_exceeded(count: int) -> bool:
        above = count - mean
        return above - count * math.log1p(above / mean) > math.log(chance)

    # The bound falls with b; by bisection, as a manifest may state any number of encodings.
    low, step = math.ceil(mean), 1
    while is_exceeded(low + step):
        step *= 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_exceeded(middle) else (low, middle)
    return high


def epsilon_with_labels_hidden(
    scheme: Scheme,
    shape: tuple[int, ...],
    std: Sequence[float],
    *,
    images: int,
    copies: int,
    delta: float = DELTA,
) -> float:
    """The epsilon if labels were secret too, so that partners could amplify privacy.

    For comparison only: no encoder of this library withholds labels. The ``copies`` of an image are
    Gaussian mechanisms; the encodings of the other ``images`` contain it as one of their
    private_k - 1 partners, drawn without replacement (Wang, Balle and Kasiviswanathan, AISTATS
    2019, arXiv:1808.00087). Every coefficient is taken to be c1. The Renyi accounting of
    `dp-accounting` exceeds `epsilon_upper_bound` if there is little noise; both bounds hold.

    Raises:
        InstaHideError: `dp-accounting` is not installed, or ``delta`` is not between 0 and 1.
    """
    require_delta(delta)
    if not scheme.noise:
        return math.inf
    with requires_extra("dp-accounting", "accounting"):
        import dp_accounting
        from dp_accounting.rdp import RdpAccountant

    # The accountant takes the ratio of the noise to the change by replacing an image, as the paper.
    one = dp_accounting.GaussianDpEvent(scheme.noise / (scheme.c1 * sensitivity(shape, std)))
    accountant = RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
    ).compose(one, copies)
    if scheme.private_k > 1:
        others = images - 1
        sampled = dp_accounting.SampledWithoutReplacementDpEvent(others, scheme.private_k - 1, one)
        accountant.compose(sampled, others * copies)
    seen = epsilon_upper_bound(scheme, shape, std, copies=copies, delta=delta)
    return min(seen, float(accountant.get_epsilon(delta)))


def require_delta(delta: float) -> None:
    """Check that ``delta`` is a probability.

    Raises:
        InstaHideError: ``delta`` is not between 0 and 1, or below `LEAST_DELTA`.
    """
    if not 0 < delta < 1:
        raise InstaHideError(
            f"delta = {delta} is not between 0 and 1.",
            "Use a number well below 1 / images, as 1e-5.",
        )
    if delta < LEAST_DELTA:
        raise InstaHideError(
            f"delta = {delta} is too small: noise of finite precision does not guarantee so much.",
            f"Use at least {LEAST_DELTA:g}, such as 1e-5.",
        )


def privacy_statement(
    epsilon: float | None, delta: float = DELTA, *, noise: bool, scope: str = ""
) -> str:
    """The sentence on differential privacy that every command and every report prints.

    Args:
        epsilon: of the least protected image; infinite if one of its encodings has no noise; None
            if it is unknown here.
        delta: of this epsilon.
        noise: whether the scheme adds noise. Without noise there is no guarantee.
        scope: text that qualifies epsilon, such as ", at most", or says who knows it.

    Epsilon is rounded up. It is never stated as 0: an epsilon of 0 means that no encoding was
    counted, so nothing is known about encodings that may exist.
    """
    if not noise:
        return "Differential privacy: none (no noise added)"
    if epsilon is None:
        return f"Differential privacy: not known here{scope}"
    if math.isinf(epsilon):
        return "Differential privacy: none (some encodings of these images have no noise)"
    if epsilon == 0:
        return "Differential privacy: none claimed (no encoding of these images was counted)"
    shown = _UPWARDS.create_decimal(repr(float(max(epsilon, _LEAST_EPSILON))))
    return f"Differential privacy: epsilon = {float(shown):,.3g} at delta = {delta:g}{scope}"

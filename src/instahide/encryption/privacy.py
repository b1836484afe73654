"""What noise guarantees: differential privacy of an image's pixels, where labels are public.

Two data sets are neighbours if they differ in the pixels of one private image, and in nothing else:
labels, partners, coefficients and the normalization are taken to be known. Under these, all
encodings that the image went into are one Gaussian mechanism, whose mean moves by at most

    mu = sensitivity * sqrt(sum of its squared coefficients) / noise

standard deviations. docs/noise.md derives it, and says what it leaves out.

Source: Dwork and Roth, "The Algorithmic Foundations of Differential Privacy" (2014), appendix A;
Balle and Wang, "Improving the Gaussian Mechanism" (ICML 2018, arXiv:1805.06530), theorem 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Context

import torch

from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.utils.optional_deps import requires_extra

#: The delta that figures are given at, unless another is asked for.
DELTA = 1e-5
#: Margin for the rounding of sums of many losses.
_ROUNDING = 1 - 1e-9
#: Three digits, rounded up: an epsilon is never stated smaller than it is.
_UPWARDS = Context(prec=3, rounding=ROUND_CEILING)
_LEAST_EPSILON = 0.001


def sensitivity(shape: tuple[int, int, int], std: Sequence[float]) -> float:
    """How far apart, in L2, two images of ``shape`` (C, H, W) can be once they are normalized.

    Each pixel lies between 0 and 1 before that, so that nothing needs to be clipped.
    """
    _, height, width = shape
    return math.sqrt(sum(height * width / deviation**2 for deviation in std))


def mu_squared_rate(
    scheme: Scheme, shape: tuple[int, int, int], std: Sequence[float] | None
) -> float:
    """What a squared coefficient of 1 adds to the mu^2 of an image.

    Infinite without noise, or if ``std``, by which pixel / 255 was divided, is unknown (None).
    """
    if not scheme.noise or std is None:
        return math.inf
    return (sensitivity(shape, std) / scheme.noise) ** 2


def delta_of(epsilon: float, mu: float) -> float:
    """The least delta of a Gaussian mechanism whose mean moves by ``mu`` deviations."""
    # By the logarithm: where epsilon is large, its power is beyond float64.
    inner, outer = torch.special.log_ndtr(
        torch.tensor([mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu], dtype=torch.float64)
    ).tolist()
    return math.exp(inner) - math.exp(min(0.0, epsilon + outer))


def epsilon_of(loss: float, delta: float = DELTA) -> float:
    """The least epsilon, from above, of an image whose mu^2 has come to ``loss``.

    Raises:
        InstaHideError: a delta that is no chance.
    """
    require_delta(delta)
    if not 0 < loss < math.inf:
        return loss
    mu = math.sqrt(loss)
    # At `high` the tail beyond epsilon alone is below delta.
    high = loss / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    return _bisect(lambda epsilon: delta_of(epsilon, mu) > delta, high)[1]


def largest_loss(epsilon: float, delta: float) -> float:
    """The largest mu^2 whose epsilon at ``delta`` is at most ``epsilon``, rounded down.

    It leaves a margin for the rounding of sums of many losses.
    """
    # If delta is below one half, epsilon is above mu^2 / 2.
    return _bisect(lambda loss: epsilon_of(loss, delta) <= epsilon, 2 * epsilon)[0] * _ROUNDING


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
    shape: tuple[int, int, int],
    std: Sequence[float],
    *,
    copies: int,
    limit: int | None = None,
    earlier: float = 0.0,
    delta: float = DELTA,
) -> float:
    """An epsilon that no image will pass, before any coefficient is drawn.

    Every coefficient counts as c1. An image is in ``limit`` encodings at most; without a limit, in
    its own ``copies`` and in so many others that more have a chance of delta / 2, which is taken
    off delta. ``earlier`` is the loss of what has gone out already.

    Raises:
        InstaHideError: a delta that is no chance.
    """
    require_delta(delta)
    if limit is None:
        delta /= 2
        limit = copies + max_partner_count(copies * (scheme.private_k - 1), delta)
    return epsilon_of(earlier + scheme.c1**2 * limit * mu_squared_rate(scheme, shape, std), delta)


def max_partner_count(mean: float, chance: float) -> int:
    """A count that a binomial one of this ``mean`` passes with at most this ``chance``.

    By Chernoff's bound: P(X >= b) <= exp(b - mean) (mean / b)^b for b above the mean.
    """
    if mean == 0:
        return 0
    count = math.ceil(mean) + 1
    while count - mean - count * math.log(count / mean) > math.log(chance):
        count += 1
    return count


def epsilon_with_labels_hidden(
    scheme: Scheme,
    shape: tuple[int, int, int],
    std: Sequence[float],
    *,
    images: int,
    copies: int,
    delta: float = DELTA,
) -> float:
    """What epsilon would be if nobody saw a label, so that nobody knew who may be in which mix.

    No encoder here keeps labels back: this is for comparison. The ``copies`` of an image are
    Gaussian mechanisms, and those of the other ``images`` have it among their private_k - 1
    partners, drawn without replacement (Wang, Balle and Kasiviswanathan, AISTATS 2019,
    arXiv:1808.00087). Every coefficient counts as c1. Renyi accounting by `dp-accounting`, which
    gives more than `epsilon_upper_bound` where there is little noise: the lesser holds.

    Raises:
        InstaHideError: `dp-accounting` is not installed, or a delta that is no chance.
    """
    require_delta(delta)
    if not scheme.noise:
        return math.inf
    with requires_extra("dp-accounting", "accounting"):
        import dp_accounting
        from dp_accounting.rdp import RdpAccountant

    # This accountant wants the noise over what replacing an image moves, as the paper has it.
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
    """Check that ``delta`` is a chance.

    Raises:
        InstaHideError: it is not between 0 and 1.
    """
    if not 0 < delta < 1:
        raise InstaHideError(
            f"delta = {delta} is no chance.", "Use a number well below one over the images: 1e-5."
        )


def privacy_statement(
    epsilon: float | None, delta: float = DELTA, *, noise: bool, scope: str = ""
) -> str:
    """The sentence on differential privacy that every command and every report prints.

    Args:
        epsilon: of the image that is protected least; infinite if an encoding of it has no noise;
            None if nobody here can know it.
        delta: that it is given at.
        noise: whether the scheme adds any. Without noise there is no guarantee, whatever else is
            known.
        scope: what the figure is about, as in ", at most"; or who knows it, if it is None.

    Epsilon is rounded up. It is never stated as 0: that is what it comes to where nothing was
    counted, and who has counted nothing cannot know what there is.
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

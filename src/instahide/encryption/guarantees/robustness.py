"""Reconstruction robustness: a bound on the chance that any attack succeeds, under any prior.

Success is whatever the reader chooses, such as an error below a threshold. An attacker who sees no
encoding succeeds with at most some chance kappa, the baseline, by guessing. With all encodings of
an image whose loss is mu^2, and all keys and all other images, the chance is at most

    Phi(Phi^-1(kappa) + mu / 2).

The half is because every image lies within half the sensitivity of the image whose pixels are all
in the middle of their range. docs/guarantees.md derives this.

Source: Balle, Cherubin and Hayes, "Reconstructing Training Data with Informed Adversaries" (IEEE
S&P 2022, arXiv:2201.04845); Hayes, Mahloujifar and Balle, "Bounding Training Data Reconstruction in
DP-SGD" (NeurIPS 2023, arXiv:2302.07225), theorem 2; Kaissis, Hayes, Ziller and Rueckert, "Bounding
Data Reconstruction Attacks with the Hypothesis Testing Interpretation of Differential Privacy"
(arXiv:2307.03928).
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context

import torch

from instahide.errors import InstaHideError

#: Default baseline: an attacker without encodings succeeds once in a thousand times.
BASELINE = 0.001
#: A bound above so many percent says nothing.
VACUOUS = 99.0
#: Three digits, rounded up, so that a chance is never understated.
_UPWARDS = Context(prec=3, rounding=ROUND_CEILING)


def success_bound(loss: float, baseline: float = BASELINE) -> float:
    """The largest chance that an attack on an image succeeds.

    Args:
        loss: mu^2 of the image, as in `privacy.mu_squared_rate`, summed over its encodings.
        baseline: kappa, the chance of success of the best guess without any encoding.

    Raises:
        InstaHideError: ``baseline`` is not between 0 and 1.

    Examples:
        >>> from instahide.encryption.guarantees.robustness import success_bound
        >>> success_bound(0.0, 0.01)
        0.01
        >>> round(success_bound(4.0, 0.01), 3)
        0.092
    """
    require_baseline(baseline)
    if loss == 0:
        return baseline
    quantile = torch.special.ndtri(torch.tensor(baseline, dtype=torch.float64))
    return float(torch.special.ndtr(quantile + math.sqrt(loss) / 2))


def require_baseline(baseline: float) -> None:
    """Check that ``baseline`` is a probability.

    Raises:
        InstaHideError: ``baseline`` is not between 0 and 1.
    """
    if not 0 < baseline < 1:
        raise InstaHideError(
            f"baseline = {baseline} is not between 0 and 1.",
            "Use the chance of success of a guess, as 0.001.",
        )


def robustness_statement(
    loss: float | None, baseline: float = BASELINE, *, noise: bool, scope: str = ""
) -> str:
    """The sentence on reconstruction robustness that every command and every report prints.

    Args:
        loss: largest mu^2 of an image; infinite if one of its encodings has no noise; None if it
            is unknown here.
        baseline: kappa.
        noise: whether the scheme adds noise. Without noise there is no bound.
        scope: text that qualifies the bound, or says who knows it.
    """
    if not noise:
        return "Reconstruction robustness: none (no noise added)"
    if loss is None:
        return f"Reconstruction robustness: not known here{scope}"
    if loss == 0:
        return "Reconstruction robustness: none claimed (no encoding of these images was counted)"
    if math.isinf(loss):
        return "Reconstruction robustness: none (some encodings of these images have no noise)"
    bound = 100 * success_bound(loss, baseline)
    shown = min(100.0, float(_UPWARDS.create_decimal(repr(bound))))
    vacuous = ", which is no protection" if shown > VACUOUS else ""
    return (
        f"Reconstruction robustness: an attack that succeeds in {100 * baseline:g}% of cases "
        f"without encodings succeeds in at most {shown:.3g}% with them{vacuous}{scope}"
    )

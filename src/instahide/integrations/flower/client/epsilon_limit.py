"""A participant's `max-epsilon`: the limit of an image's privacy loss over all rounds and runs.

Noise makes every encoding of an image a Gaussian mechanism, and their losses (mu^2) add up in the
participant's ledger (`encryption/privacy.py`). Before a round the epsilon is turned into a limit of
encodings, at the largest coefficient that the scheme allows, so that it holds whatever is drawn.
"""

from __future__ import annotations

import math

import numpy as np

from instahide.encodings.ledger.account import LedgerAccount
from instahide.encryption.privacy import epsilon_of
from instahide.integrations.flower.errors import RefusalError


def limit_of(account: LedgerAccount, step: float, most: float) -> int:
    """The limit of encodings of an image that keeps every loss at most ``most``.

    Args:
        account: account of the participant's ledger, with its own limit.
        step: largest loss (mu^2) of an image by one encoding; infinite without noise.
        most: largest loss allowed.

    Raises:
        RefusalError: there is no noise, or some image may not go into even one more encoding.
    """
    if math.isfinite(step):
        further = np.floor(np.maximum(most - account.losses, -step) / step)
        if further.min() >= 1:
            allowed = int(min((account.counts + further).min(), 2.0**62))
            return allowed if account.limit is None else min(account.limit, allowed)
    raise RefusalError(
        "Without noise this participant's `max-epsilon` cannot be kept."
        if math.isinf(step)
        else "The next encodings could bring an image of this participant above its `max-epsilon`.",
        "Start a run with more noise, or take this participant out.",
    )


def require_epsilon(account: LedgerAccount, max_epsilon: float, delta: float) -> None:
    """Check the privacy loss after a round, before any result is sent.

    Another process may have counted encodings of the same images in the meantime.

    Raises:
        RefusalError: the epsilon of an image is above ``max_epsilon``.
    """
    if epsilon_of(float(account.losses.max()), delta) > max_epsilon:
        raise RefusalError(
            "An image of this participant has passed its `max-epsilon`.",
            "Nothing of this round is sent; take this participant out.",
        )

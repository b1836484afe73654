"""A node's `max-epsilon`: no image may lose more privacy than that, over all rounds and runs.

Noise makes every encoding of an image a Gaussian mechanism, and their losses (mu^2) add up in the
node's ledger (`encryption/privacy.py`). Before a round the epsilon is turned into a limit of
encodings, at the largest coefficient that the scheme allows, so that it holds whatever is drawn.
"""

from __future__ import annotations

import math

import numpy as np

from instahide.encodings.ledger.account import LedgerAccount
from instahide.encryption.privacy import epsilon_of
from instahide.integrations.flower.errors import RefusalError

#: Sums of many losses are rounded, each by far less than this.
ROUNDING = 1 - 1e-9
_STEPS = 60


def largest_loss(max_epsilon: float, delta: float) -> float:
    """The largest mu^2 whose epsilon at ``delta`` is at most ``max_epsilon``, from below."""
    # Where delta is below one half, epsilon is above mu^2 / 2.
    low, high = 0.0, 2 * max_epsilon
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if epsilon_of(middle, delta) <= max_epsilon:
            low = middle
        else:
            high = middle
    return low * ROUNDING


def limit_of(account: LedgerAccount, step: float, most: float) -> int:
    """How many encodings an image may be in, in all, so that none loses more than ``most``.

    Args:
        account: of the node's ledger, with its own limit.
        step: the most that one encoding adds to an image's loss; infinite without noise.
        most: the largest loss that is allowed.

    Raises:
        RefusalError: not even one further encoding of every image is allowed.
    """
    if math.isfinite(step):
        further = np.floor(np.maximum(most - account.losses, -step) / step)
        if further.min() >= 1:
            allowed = int(min((account.counts + further).min(), 2.0**62))
            return allowed if account.limit is None else min(account.limit, allowed)
    raise RefusalError(
        "Without noise nothing keeps this node's `max-epsilon`."
        if math.isinf(step)
        else "The next encodings could bring an image of this node above its `max-epsilon`.",
        "Start a run with more noise, or take this node out.",
    )


def require_epsilon(account: LedgerAccount, max_epsilon: float, delta: float) -> None:
    """Check what a round has spent, before anything of it is sent.

    Another process may have counted encodings of the same images meanwhile.

    Raises:
        RefusalError: an image has passed ``max_epsilon``.
    """
    if epsilon_of(float(account.losses.max()), delta) > max_epsilon:
        raise RefusalError(
            "An image of this node has passed its `max-epsilon`.",
            "Nothing of this round is sent; take this node out.",
        )

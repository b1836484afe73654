"""A participant's `max-epsilon` and `min-mse`: limits of an image's loss over all rounds and runs.

Noise makes every encoding of an image a Gaussian mechanism, and their losses (mu^2) add up in the
participant's ledger (`encryption/privacy.py`). Both settings are limits of this loss, and its
account keeps the stricter one. The loss of DP-SGD is of another kind (`dp_sgd_history.py`), so
images with a limit are used either in encodings or by DP-SGD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.dp_sgd_history import Entry
from instahide.encryption.privacy import DELTA, largest_loss
from instahide.integrations.flower.errors import RefusalError

_REMEDY = "Start a run with more noise, or take this participant out."


@dataclass(frozen=True)
class LossLimits:
    """The limits that a participant sets.

    Attributes:
        max_epsilon: largest epsilon of an image; None for no limit.
        delta: delta of that epsilon.
        min_mse: least error of unbiased reconstructions, as for `Ledger.account`; None for no
            limit.
    """

    max_epsilon: float | None = None
    delta: float = DELTA
    min_mse: float | None = None

    @property
    def names(self) -> str:
        """The settings that are named, for messages; empty if there is none."""
        named = {"`max-epsilon`": self.max_epsilon, "`min-mse`": self.min_mse}
        return " and ".join(name for name, value in named.items() if value is not None)

    def as_min_mse(self, values: int) -> float | None:
        """The ``min_mse`` that keeps both limits for images of ``values``; None without any."""
        floors = [] if self.min_mse is None else [self.min_mse]
        if self.max_epsilon is not None:
            most = largest_loss(self.max_epsilon, self.delta)
            floors.append(values / most if most > 0 else math.inf)
        return max(floors, default=None)

    def require_noise(self, noise: float) -> None:
        """Check that limits can be kept at all.

        Raises:
            RefusalError: there are limits and no noise.
        """
        if self.names and not noise:
            raise RefusalError(
                f"Without noise this participant's {self.names} cannot be kept.", _REMEDY
            )

    def require_no_dp_sgd(self, history: Sequence[Entry]) -> None:
        """Check, before noisy training, that DP-SGD has not used images of the same ledger.

        Args:
            history: the DP-SGD steps so far.

        Raises:
            RefusalError: there are limits and steps.
        """
        if self.names and history:
            raise RefusalError(
                "This participant has trained by DP-SGD, and the loss of that cannot be added to "
                f"the loss of encodings, so its {self.names} cannot be kept.",
                "Start a run with DP-SGD, or take this participant out.",
            )

    def require_no_encodings(self, loss: float) -> None:
        """Check, before DP-SGD, that the images are in no encodings.

        Args:
            loss: the largest loss of an image by encodings so far.

        Raises:
            RefusalError: there are limits and a loss.
        """
        if self.names and loss > 0:
            raise RefusalError(
                "Images of this participant are in encodings, whose loss cannot be added to that "
                f"of DP-SGD, so its {self.names} cannot be kept.",
                "Start a run without DP-SGD and with noise, or take this participant out.",
            )

    def require_next(self, step: float, most: float, so_far: float = 0.0) -> None:
        """Check, before a round, that every image may go into one more encoding.

        Args:
            step: the largest loss of an image by one encoding.
            most: the largest loss allowed.
            so_far: the largest loss of an image so far.

        Raises:
            RefusalError: some image may not.
        """
        if so_far + step > most:
            raise RefusalError(
                "The next encodings could bring an image of this participant beyond its "
                f"{self.names}.",
                _REMEDY,
            )

    def require_kept(self, account: LedgerAccount) -> None:
        """Check the losses after a round, before any result is sent.

        Another process may have counted encodings of the same images in the meantime.

        Raises:
            RefusalError: the loss of an image is beyond the limits.
        """
        limit = account.loss_limit
        if limit is not None and float(account.losses.max()) > limit.most:
            raise RefusalError(
                f"An image of this participant is beyond its {self.names}.",
                "Nothing of this round is sent; take this participant out.",
            )


#: Of a participant that sets no limits.
NO_LIMITS = LossLimits()

"""The sentences on all guarantees that commands and reports print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from instahide.encryption.encoders.checked_calls import epsilon_of_encoder
from instahide.encryption.guarantees.error_floor import floor_statement, unbiased_floor
from instahide.encryption.guarantees.robustness import BASELINE, robustness_statement
from instahide.encryption.privacy import (
    DELTA,
    epsilon_of,
    epsilon_upper_bound,
    loss_upper_bound,
    privacy_statement,
)
from instahide.encryption.scheme import Scheme

if TYPE_CHECKING:
    from instahide.encryption.encoders.base import InstanceEncoder, Published

#: Probability that a bound of the loss, known before coefficients are drawn, allows for an image.
CHANCE = DELTA / 2


@dataclass(frozen=True)
class Guarantees:
    """The guarantees of the least protected image; each is None if it is unknown.

    Attributes:
        noise: whether the scheme adds noise. Without noise there is no guarantee.
        epsilon: of differential privacy, at ``delta``.
        floor: unbiased error floor.
        loss: mu^2.
        delta: delta of epsilon.
        chance: probability for an image to have a larger loss, which floor and loss do not hold
            for; 0 if there is none.
    """

    noise: bool
    epsilon: float | None = None
    floor: float | None = None
    loss: float | None = None
    delta: float = DELTA
    chance: float = 0.0

    @classmethod
    def of(cls, loss: float, values: int | None, *, noise: bool, delta: float = DELTA) -> Self:
        """The guarantees of an image of ``values`` whose mu^2 is ``loss``; None if unknown.

        Raises:
            InstaHideError: ``delta`` is not between 0 and 1.
        """
        floor = None if values is None else unbiased_floor(loss, values)
        return cls(noise, epsilon_of(loss, delta), floor, loss, delta)

    @classmethod
    def beforehand(
        cls,
        scheme: Scheme,
        shape: tuple[int, ...],
        std: Sequence[float],
        *,
        copies: int,
        limit: int | None = None,
        earlier: float = 0.0,
        delta: float = DELTA,
    ) -> Self:
        """Bounds for every image, known before any coefficient is drawn.

        As for `privacy.epsilon_upper_bound`; without a limit, the loss of an image exceeds its
        bound with probability at most `privacy.DELTA` / 2, whatever ``delta`` is.

        Raises:
            InstaHideError: ``delta`` is not between 0 and 1.
        """
        epsilon = epsilon_upper_bound(
            scheme, shape, std, copies=copies, limit=limit, earlier=earlier, delta=delta
        )
        loss = loss_upper_bound(
            scheme, shape, std, copies=copies, limit=limit, earlier=earlier, chance=CHANCE
        )
        floor = unbiased_floor(loss, math.prod(shape))
        chance = 0.0 if limit is not None or scheme.private_k == 1 else CHANCE
        return cls(bool(scheme.noise), epsilon, floor, loss, delta, chance)

    @classmethod
    def of_encoder(
        cls, encoder: InstanceEncoder, published: Published, *, uneven: bool, delta: float = DELTA
    ) -> Self:
        """Those of another encoder than a scheme: no more than its own epsilon.

        Args:
            encoder: what made the encodings.
            published: what is published.
            uneven: whether some images are drawn more often than its epsilon assumes.
            delta: delta of epsilon.

        Raises:
            SchemeError: its epsilon is no bound, see `checked_calls.epsilon_of_encoder`.
        """
        epsilon = epsilon_of_encoder(encoder, published, delta)
        noise = math.isfinite(epsilon)
        return cls(noise, None if noise and uneven else epsilon, delta=delta)

    def statements(
        self, baseline: float = BASELINE, *, scope: str = "", at_most: bool = False
    ) -> dict[str, str]:
        """The sentences, by their names in JSON.

        Args:
            baseline: kappa of `robustness.success_bound`.
            scope: text that qualifies all of them, or says who knows them.
            at_most: whether epsilon is an upper bound only.

        Raises:
            InstaHideError: ``baseline`` is not between 0 and 1.
        """
        known = self.epsilon is not None and 0 < self.epsilon < math.inf
        bound = ", at most" if at_most and known else ""
        rest = ""
        if self.chance and self.loss is not None:
            rest = f", except with probability {self.chance:g} for each image"
        return {
            "differential_privacy": privacy_statement(
                self.epsilon, self.delta, noise=self.noise, scope=bound + scope
            ),
            "error_floor": floor_statement(self.floor, noise=self.noise, scope=rest + scope),
            "reconstruction_robustness": robustness_statement(
                self.loss, baseline, noise=self.noise, scope=rest + scope
            ),
        }

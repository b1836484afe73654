"""Proposes candidates: first ones that span the range, then what Optuna suggests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

import numpy as np

from instahide.audit.advice.candidate import Candidate, Space
from instahide.audit.advice.encoder_candidate import AnyCandidate, EncoderCandidate
from instahide.audit.advice.front import Point
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    from types import ModuleType

    from optuna import Study

#: Suggestions that were measured before, in a row, after which a candidate is drawn at random.
MOST_REPEATS = 5


def import_optuna() -> ModuleType:
    """Optuna, which is imported only where it is used.

    Raises:
        IntegrationError: it is missing.
    """
    with requires_extra("Optuna", "advise"):
        import optuna
    return optuna


class Proposals:
    """New candidates, none of them twice.

    Optuna's sampler models both objectives by Gaussian processes and suggests what is expected to
    move the front most. Measurements take so long that its time does not matter. Optuna's pruners
    are for one objective only: the search compares candidates itself, see `bench`.

    Args:
        space: all schemes.
        others: candidates of other encoders, which are tried in turn with the first schemes.
        seed: seed of the sampler.

    Raises:
        IntegrationError: Optuna is missing.
    """

    def __init__(
        self, space: Space, others: Sequence[EncoderCandidate] = (), seed: int = 0
    ) -> None:
        self._optuna = import_optuna()
        self.space = space
        self.others = list(others)
        self._generator = np.random.default_rng(seed)
        self._seed = seed

    @property
    def first(self) -> list[AnyCandidate]:
        """The first candidates: schemes and other encoders in turn."""
        pairs = zip_longest(self.space.first(), self.others)
        return [candidate for candidate in chain.from_iterable(pairs) if candidate is not None]

    @property
    def candidates(self) -> list[AnyCandidate]:
        """All candidates, each once."""
        return [*self.space.candidates(), *self.others]

    def propose(self, tried: Mapping[AnyCandidate, Point]) -> AnyCandidate | None:
        """A candidate that is not in ``tried``; None if all are.

        Args:
            tried: what was measured of each candidate so far; of one that was stopped early, the
                least exposure and the accuracy until then.
        """
        for candidate in self.first:
            if candidate not in tried:
                return candidate
        study = self._study({c: point for c, point in tried.items() if isinstance(c, Candidate)})
        for _ in range(MOST_REPEATS):
            suggested = self.space.suggested(study.ask())
            if suggested not in tried:
                return suggested
        left = [candidate for candidate in self.space.candidates() if candidate not in tried]
        return left[self._generator.integers(len(left))] if left else None

    def _study(self, tried: Mapping[Candidate, Point]) -> Study:
        """A study of what was tried; the measurements are all that is kept of it."""
        optuna = self._optuna
        before = optuna.logging.get_verbosity()
        # Otherwise it writes a line for each trial to standard error.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            sampler = optuna.samplers.GPSampler(seed=self._seed + len(tried), n_startup_trials=1)
            study: Study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        finally:
            optuna.logging.set_verbosity(before)
        ranges = {
            name: optuna.distributions.IntDistribution(0, size - 1)
            for name, size in self.space.sizes.items()
        }
        for candidate, point in tried.items():
            study.add_trial(
                optuna.trial.create_trial(
                    params=self.space.parameters(candidate), distributions=ranges, values=point
                )
            )
        return study

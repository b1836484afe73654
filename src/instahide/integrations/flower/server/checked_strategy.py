"""A Flower strategy that gets only answers that passed the checks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from instahide.integrations.flower.server.reply_checks import CheckedReply, ReplyChecks

_log = logging.getLogger(__name__)


class CheckedStrategy(FedAvg):
    """A strategy that drops invalid answers and aggregates the others.

    Use it as a base class in front of one of Flower's strategies.

    Attributes:
        checks: the checks of answers.
        last: the checked answers of the last aggregated round.
    """

    checks: ReplyChecks
    last: CheckedReply

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does it; changes of weights are measured from ``arrays``."""
        self.checks.begin(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the strategy does it, on valid answers; returns nothing if there are none.

        A result that is not finite is not used either. The metrics are those of all valid answers:
        Krum, MultiKrum and Bulyan would leave out the exposures of clients that they do not select.
        """
        self.last = self._checked(replies, self.checks.trained)
        if not self.last.kept:
            return None, None
        found, _ = super().aggregate_train(server_round, self.last.kept)
        contents = [reply.content for reply in self.last.kept]
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        if found is not None and not self.checks.is_network(found):
            _log.error("Round %d: the network would not be finite; it is unchanged.", server_round)
            return None, metrics
        return found, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """As the strategy does it, on valid answers."""
        self.last = self._checked(replies, self.checks.tested)
        return super().aggregate_evaluate(server_round, self.last.kept) if self.last.kept else None

    def _checked(
        self, replies: Iterable[Message], check: Callable[[Iterable[Message]], CheckedReply]
    ) -> CheckedReply:
        checked = check(replies)
        for node, why in checked.dropped.items():
            _log.warning("Participant %s: %s", node, why)
        return checked


def check_replies(strategy: type[FedAvg]) -> type[CheckedStrategy]:
    """A subclass of ``strategy``, with the same name, that checks answers."""
    return type(strategy.__name__, (CheckedStrategy, strategy), {"__doc__": strategy.__doc__})

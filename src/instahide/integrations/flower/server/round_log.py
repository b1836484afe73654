"""The log of a federation's rounds: answers, failures and metrics.

It is written to ``results.json`` after every round.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from instahide.integrations.flower.server.checked_strategy import CheckedStrategy
from instahide.integrations.flower.server.reply_checks import CheckedReply
from instahide.utils.atomic_write import write_json

#: Why a participant that did not answer is missing.
NO_ANSWER = "No answer in time."
NOTHING_USED = "No client's answer could be used, so the network is unchanged."
NOT_COMBINED = "The strategy made no network from the answers, so the network is unchanged."
_log = logging.getLogger(__name__)


class RoundLog:
    """The rounds so far, ready for JSON; nothing in it is secret.

    Args:
        facts: entries of the file besides the rounds.
        path: path of the file; None keeps the log in memory.
    """

    def __init__(self, facts: Mapping[str, object], path: Path | None) -> None:
        self._facts = facts
        self._path = path
        self._addressed: set[int] = set()
        self._began = time.monotonic()
        self.rounds: list[dict[str, Any]] = []

    def begin(self, number: int, addressed: Iterable[int]) -> None:
        """Round ``number`` begins; the participants ``addressed`` are sent the network."""
        self._addressed, self._began = set(addressed), time.monotonic()
        self.rounds.append({"round": number, "clients": [], "failures": []})

    def heard(self, answers: CheckedReply, *, changed: bool) -> None:
        """Add the answers of a round, the failures, and whether the network is ``changed``."""
        entry = self.rounds[-1]
        entry["seconds"] = time.monotonic() - self._began
        entry["clients"] = [{"node": str(n), **numbers} for n, numbers in answers.numbers.items()]
        silent = self._addressed - set(answers.numbers) - set(answers.dropped)
        missing = answers.dropped | dict.fromkeys(silent, NO_ANSWER)
        entry["failures"] += [{"node": str(n), "reason": why} for n, why in missing.items()]
        if not changed:
            entry["failed"] = NOT_COMBINED if answers.kept else NOTHING_USED
            _log.error("Round %d: %s", entry["round"], entry["failed"])

    def tested(self, answers: CheckedReply) -> None:
        """Add failures of the clients' tests."""
        self.rounds[-1]["failures"] += [
            {"node": str(node), "reason": why} for node, why in answers.dropped.items()
        ]

    def summed(self, metrics: MetricRecord | None) -> None:
        """Add aggregated metrics of training or of the clients' tests."""
        self.rounds[-1].update(metrics or {})

    def end(self, metrics: Mapping[str, float] | None) -> None:
        """End the round with the ``metrics`` on the server's test images, if it has any."""
        self.rounds[-1].update(metrics or {})
        self.write({})

    def refusals(self) -> dict[str, str]:
        """The last reason that each participant gave for taking no part, by participant."""
        return {
            failure["node"]: failure["reason"]
            for entry in self.rounds
            for failure in entry["failures"]
        }

    def write(self, end: Mapping[str, object]) -> None:
        """Write the log to its file atomically, with the entries ``end``.

        Raises:
            InstaHideError: the file cannot be written.
        """
        if self._path is not None:
            refused = {"refusals": self.refusals()}
            write_json(self._path, {**self._facts, "rounds": self.rounds, **refused, **end})


class LoggedStrategy(Strategy):
    """A strategy that logs the messages and answers of another one."""

    def __init__(self, strategy: CheckedStrategy, log: RoundLog) -> None:
        self._strategy = strategy
        self._round_log = log

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does it."""
        messages = list(self._strategy.configure_train(server_round, arrays, config, grid))
        self._round_log.begin(server_round, [message.metadata.dst_node_id for message in messages])
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the strategy does it."""
        arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        self._round_log.heard(self._strategy.last, changed=arrays is not None)
        self._round_log.summed(metrics)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does it."""
        return self._strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """As the strategy does it."""
        metrics = self._strategy.aggregate_evaluate(server_round, replies)
        self._round_log.tested(self._strategy.last)
        if metrics is not None:
            means = {
                f"client-{name}": value for name, value in metrics.items() if name != "num-examples"
            }
            self._round_log.summed(MetricRecord(means))
        return metrics

    def summary(self) -> None:
        """As the strategy does it."""
        self._strategy.summary()
